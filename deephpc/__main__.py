"""Starts the command line; Ctrl-C ends it without a traceback also while it still loads."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from deephpc.cli import main as command_line  # slow to load, so it is loaded where Ctrl-C is caught

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
