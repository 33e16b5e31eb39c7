"""Starts the command line; Ctrl-C ends it without a traceback also while it still loads."""

import gc
import sys

_OBJECTS = 20_000


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(_OBJECTS)  # what is loaded is no garbage: looking for some costs a fifth of a short command,
    try:
        from deephpc.cli import main as command_line  # slow to load, so it is loaded where Ctrl-C is caught

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # and most of that at its very end


if __name__ == "__main__":
    main()
