"""What is wrong, or could be better, in a metadata file, and on which line."""

from typing import Literal

from deephpc.model import Model


class Finding(Model):
    """One remark about a file."""

    level: Literal["error", "advice"]
    """An error makes the module invalid; advice does not."""
    line: int
    """Counted from 1."""
    key: str = ""
    """Dotted key it is about; empty for the whole file."""
    message: str

    def describe(self) -> str:
        """Return it in one line, without the file's name."""
        return f"line {self.line}: {self.key + ': ' if self.key else ''}{self.message}"
