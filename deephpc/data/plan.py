"""Decides what a transfer has to do, from what both sides list and what earlier ones noted; pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from deephpc.data.ledger import Seen
from deephpc.data.storage import Entry

_SAME_TIME_S = 1e-3


class Action(str, Enum):
    """What becomes of a file."""

    TRANSFER = "transfer"
    HASH = "hash"
    """It is there already by size and time; only its hash is not known."""
    SKIP = "skip"
    """It is there already."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file's part of a plan."""

    entry: Entry
    """At the source."""
    action: Action
    sha256: str = ""
    """Where it is known."""


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What a transfer will do, file by file."""

    source: str
    target: str
    steps: tuple[Step, ...]

    @property
    def transfers(self) -> tuple[Step, ...]:
        """The files to bring."""
        return tuple(step for step in self.steps if step.action is Action.TRANSFER)

    @property
    def transfer_bytes(self) -> int:
        """How much is to be brought, as far as sizes are known."""
        return sum(step.entry.size_bytes or 0 for step in self.transfers)


def plan_transfer(
    sides: tuple[str, str], source: Iterable[Entry], target: Mapping[str, Entry], seen: Mapping[str, Seen]
) -> TransferPlan:
    """Decide for every file of the source; files that only the target has stay as they are.

    Parameters
    ----------
    sides
        What source and target are called.
    """
    steps = tuple(_step(each, target.get(each.path), seen.get(each.path)) for each in source)
    return TransferPlan(*sides, steps)


def transfer_key(pair: str, entry: Entry) -> str:
    """Name one content of one file on one way: what a broken try left under this name belongs to it."""
    text = "\0".join((pair, entry.path, str(entry.size_bytes), entry.version))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def listed_as(entry: Entry) -> str:
    """Return what a list told of a file that came as another: the same words again stand for the same file."""
    return f"{entry.version} of {entry.size_bytes} bytes"


def _step(source: Entry, target: Entry | None, seen: Seen | None) -> Step:
    if target is None or target.is_folder or target.size_bytes is None:
        return Step(source, Action.TRANSFER)
    is_known = (
        seen is not None
        and source.version != ""
        and target.version != ""
        and seen.target == target.version
        and target.size_bytes == seen.size_bytes
        and (
            (seen.source == source.version and source.size_bytes in (None, seen.size_bytes))
            or seen.source == listed_as(source)
        )
    )
    if seen is not None and is_known:
        return Step(replace(source, size_bytes=seen.size_bytes), Action.SKIP, seen.sha256)
    if target.size_bytes == source.size_bytes and _same_time(source, target):
        return Step(source, Action.HASH)
    return Step(source, Action.TRANSFER)


def _same_time(one: Entry, other: Entry) -> bool:
    """Say whether both have one time of change, to the millisecond: files brought here get that of their source.

    A time of whole seconds that a server gave is hardly that of a file somebody else wrote here; a looser comparison
    would take two files of one size, both written just now, for the same.
    """
    if one.modified_s is None or other.modified_s is None:
        return False
    return abs(one.modified_s - other.modified_s) < _SAME_TIME_S
