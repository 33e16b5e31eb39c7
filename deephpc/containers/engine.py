"""What an engine does for a job: turn the program's words into the words that start it on the node."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Engine(Protocol):
    """A way to run a program in an image, or without one."""

    name: str

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the words that run `command` on a compute node (pure)."""
        ...


class Native:
    """No container: the program runs with what the node, its modules and the venv offer."""

    name = "native"

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command unchanged."""
        return tuple(command)


ENGINES: Mapping[str, Engine] = {"native": Native()}
