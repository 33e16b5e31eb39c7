"""Who is told how far a transfer came."""

from typing import Protocol


class Progress(Protocol):
    """Is told how far a transfer came; called from several threads."""

    def expect(self, size_bytes: int, files: int) -> None:
        """Note how much there is to bring."""
        ...

    def advance(self, size_bytes: int) -> None:
        """Note that so many more bytes are there; negative when some turned out worthless."""
        ...

    def finish_file(self) -> None:
        """Note that one more file is whole."""
        ...


class Silent:
    """Tells nobody."""

    def expect(self, size_bytes: int, files: int) -> None:
        """Do nothing."""

    def advance(self, size_bytes: int) -> None:
        """Do nothing."""

    def finish_file(self) -> None:
        """Do nothing."""
