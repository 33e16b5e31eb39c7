"""The stand-in's error."""


class RPCError(Exception):
    """What pyslurm raises when a daemon says no or nothing."""

    def __init__(self, errno: int = -1, msg: str | None = None) -> None:
        super().__init__(msg)
        self.errno = errno
        self.msg = msg
