"""A check and its outcome: what `deephpc doctor` makes and shows."""

from collections.abc import Sequence
from typing import Literal

from deephpc.model import Model

Outcome = Literal["ok", "warn", "fail", "skip"]


class Check(Model):
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    found: str
    """What was seen, with its values."""
    remedy: str = ""
    """The next step; empty when all is well."""


def exit_code(checks: Sequence[Check]) -> int:
    """Return 3 when a check failed, else 0."""
    return 3 if any(check.outcome == "fail" for check in checks) else 0
