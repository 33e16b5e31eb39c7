"""Slurm's short forms for host names (`gpu[01-03,7]`) and for counts per node (`4,2(x3)`), read and written.

Images lack scontrol, so we read them ourselves. Sources: scontrol(1) of Slurm 24.11, `show hostnames`; sbatch(1),
SLURM_JOB_NODELIST and SLURM_TASKS_PER_NODE.
"""

import itertools
import re
from collections.abc import Iterable

#: The most names or counts one text may stand for.
MOST_NAMES = 100_000

_PIECE = re.compile(r"[^\[\],\s]+|\[[0-9,-]+\]")
_NAME = re.compile(r"(?:[^\[\],\s]+|\[[0-9,-]+\])+")
_SPAN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_LAST_NUMBER = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)")
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


def expand_hostlist(text: str) -> tuple[str, ...]:
    """Return the names `gpu[01-03,7],b1,r[1-2]n[3-4]-ib` stands for, in the order written; leading zeros are kept.

    Raises
    ------
    ValueError
        The text is no host list, or stands for more than `MOST_NAMES` names.
    """
    names: list[str] = []
    for part in _split_outside_brackets(text.strip()):
        if not _NAME.fullmatch(part):
            raise ValueError(f"{text[:60]!r} is not a list of host names such as gpu[01-03],b1")
        choices = [_choices(piece) for piece in _PIECE.findall(part)]
        names.extend(itertools.islice(map("".join, itertools.product(*choices)), MOST_NAMES + 1 - len(names)))
        if len(names) > MOST_NAMES:
            raise ValueError(f"{text[:60]!r} stands for more than {MOST_NAMES} names")
    return tuple(names)


def compress_hostlist(names: Iterable[str]) -> str:
    """Return the short form of host names, each once: neighbours in number share brackets.

    Raises
    ------
    ValueError
        A name is empty, or has a bracket, comma or space in it.
    """
    groups: dict[tuple[str, str, bool], set[str]] = {}
    for name in names:
        if not re.fullmatch(r"[^\[\],\s]+", name):
            raise ValueError(f"{name!r} is not a host name")
        match = _LAST_NUMBER.fullmatch(name)
        before, number, after = (match[1], match[2], match[3]) if match else (name, "", "")
        groups.setdefault((before, after, match is not None), set()).add(number)
    return ",".join(_compress_group(before, numbers, after) for (before, after, _), numbers in groups.items())


def expand_counts(text: str) -> tuple[int, ...]:
    """Return one count per node: `4,2(x3),1` is (4, 2, 2, 2, 1).

    Raises
    ------
    ValueError
        The text is no list of counts, or is for more than `MOST_NAMES` nodes.
    """
    counts: list[int] = []
    for part in text.strip().split(","):
        match = _COUNT.fullmatch(part)
        times = int(match[2] or 1) if match else 0
        if match is None or len(counts) + times > MOST_NAMES:
            raise ValueError(f"{text[:60]!r} is not a list of counts such as 4,2(x3)")
        counts += [int(match[1])] * times
    return tuple(counts)


def _split_outside_brackets(text: str) -> list[str]:
    return re.split(r",(?![^\[]*\])", text) if text else []


def _choices(piece: str) -> list[str]:
    """Return what one piece of a name can be: itself, or the numbers in its brackets."""
    if not piece.startswith("["):
        return [piece]
    numbers: list[str] = []
    for span in piece[1:-1].split(","):
        match = _SPAN.fullmatch(span)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else -1
        if match is None or last < first or last - first + len(numbers) >= MOST_NAMES:
            raise ValueError(f"{piece[:60]!r} is not a bracket of at most {MOST_NAMES} host numbers such as [01-03,7]")
        width = len(match[1])
        numbers += [f"{number:0{width}d}" for number in range(first, last + 1)]
    return numbers


def _compress_group(before: str, numbers: set[str], after: str) -> str:
    if len(numbers) == 1:
        return before + next(iter(numbers)) + after
    spans: list[list[str]] = []
    for number in sorted(numbers, key=lambda text: (len(text), text)):
        if spans and f"{int(spans[-1][-1]) + 1:0{len(spans[-1][0])}d}" == number:
            spans[-1].append(number)
        else:
            spans.append([number])
    inside = ",".join(span[0] if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)
    return f"{before}[{inside}]{after}"
