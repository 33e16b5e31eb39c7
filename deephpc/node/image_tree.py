"""Makes an image's tree ready for udocker in a job: `python -I -m deephpc.node.image_tree STORE DIGEST PATH ENGINE`."""

import sys
from pathlib import Path

from deephpc.containers.store import Store
from deephpc.containers.udocker import prepare
from deephpc.errors import DeephpcError


def main(words: list[str]) -> int:
    """Make it; on failure say why in one line on stderr and return the error's exit code."""
    store, digest, path, engine = words
    try:
        prepare(Store(Path(store)).image(digest), Path(path), engine)
    except DeephpcError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
