"""Where a list of a server's and the bytes it sends disagree: the bytes decide, and the list is told."""

from collections.abc import Iterable

from deephpc.data.storage import Entry
from deephpc.model import Model


class Discrepancy(Model):
    """A file that was listed otherwise than it came."""

    path: str
    reason: str


def find_discrepancy(listed: Entry, came: Entry) -> Discrepancy | None:
    """Compare what was listed with what came; what one of both does not tell is no difference (pure)."""
    reasons = []
    if None not in (listed.size_bytes, came.size_bytes) and listed.size_bytes != came.size_bytes:
        reasons.append(f"with {listed.size_bytes} bytes, came with {came.size_bytes}")
    if not same_version(listed.version, came.version):
        kind = "ETag" if listed.version.startswith("etag:") else "time"
        reasons.append(f"with another {kind} than it came with")
    return Discrepancy(path=listed.path, reason=f"was listed {' and '.join(reasons)}") if reasons else None


def same_version(one: str, other: str) -> bool:
    """Say whether two versions may be of one content: equal, or not of one kind (an ETag, a time)."""
    return one == other or not (one and other) or one.partition(":")[0] != other.partition(":")[0]


def by_path(found: Iterable[Discrepancy]) -> tuple[Discrepancy, ...]:
    """Return discrepancies in the order of their paths."""
    return tuple(sorted(found, key=lambda each: each.path))
