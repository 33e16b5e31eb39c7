"""Every error deephpc raises on purpose: who can mend it, what to do next, the exit code.

The exit codes are a contract (docs/reference/exit-codes.md):
0 done, 1 a bug, 2 the user's input or configuration, 3 the site, 4 image or engine, 5 data,
6 the user's program failed in its job, 130 interrupted.
"""


class DeephpcError(Exception):
    """The root of the tree; never raised itself.

    Parameters
    ----------
    message
        One line that names what failed and the value at fault.
    hint
        The next step for the reader; one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(DeephpcError):
    """The user's input or configuration is at fault, and the user can mend it."""

    exit_code = 2


class SiteError(DeephpcError):
    """The site is at fault: Slurm, SSH, a file system.

    Parameters
    ----------
    transient
        True when the same command may work in a moment.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", *, transient: bool = False) -> None:
        super().__init__(message, hint)
        self.transient = transient


class EngineError(DeephpcError):
    """An image or a container engine is at fault."""

    exit_code = 4


class DataError(DeephpcError):
    """Stored data or its transfer is at fault."""

    exit_code = 5


class ProgramError(DeephpcError):
    """The user's program failed inside its job."""

    exit_code = 6
