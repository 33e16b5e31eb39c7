"""Checks the words behind `--` against what a module declares, before a job is queued for them (pure)."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from deephpc.errors import InputError
from deephpc.serve.argument_values import describe_argument, parse_value, render_value
from deephpc.serve.module_description import Argument

_MOST_NAMES = 12
_NEGATIVE = re.compile(r"-(\d|\.\d)")


def check_arguments(
    words: Sequence[str], declared: Sequence[Argument] | None, *, cwd: Path | None = None, ours: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the words for the module, one `--name=value` each; untouched where nothing is declared.

    `--name value`, `--name=value`, `--flag`, `--no-flag` and repeated `--name` of a list are understood.

    Parameters
    ----------
    cwd
        What relative paths of file arguments count from.
    ours
        Options of deephpc's own, as `--time`, which belong before the `--`.

    Raises
    ------
    InputError
        A name is unknown, a value is not of its type or not among its choices, or a required argument is missing.
    """
    if declared is None:
        return tuple(words)
    _check_not_ours(words, declared, ours)
    values = parse_arguments(words, declared, cwd=cwd)
    return tuple(f"--{name}={render_value(value)}" for name, value in values.items())


def _check_not_ours(words: Sequence[str], declared: Sequence[Argument], ours: Sequence[str]) -> None:
    names = {argument.name.replace("-", "_") for argument in declared}
    for word in words:
        name = word.partition("=")[0]
        if name in ours and name.removeprefix("--").replace("-", "_") not in names:
            raise InputError(f"the module has no argument {name}", f"{name} is deephpc's own: write it before the --")


def parse_arguments(
    words: Sequence[str], declared: Sequence[Argument], *, cwd: Path | None = None
) -> dict[str, JsonValue]:
    """Return the values of the arguments, by their declared names, in the order they were written.

    Raises
    ------
    InputError
        As `check_arguments` does.
    """
    return parse_pairs(_pairs(words, declared), declared, "--", cwd=cwd)


def parse_pairs(
    pairs: Sequence[tuple[str, str | None]],
    declared: Sequence[Argument],
    dashes: str,
    *,
    cwd: Path | None = None,
    given: Sequence[str] = (),
    in_doubt: list[InputError] | None = None,
) -> dict[str, JsonValue]:
    """Return the values of names with their texts; None for a text is a flag without one.

    Parameters
    ----------
    dashes
        What stands before a name where it was written, for messages: `--`, or `--arg ` for `--arg K=V`.
    given
        Names that get their values elsewhere, and so are not missing.
    in_doubt
        Takes what is wrong with values, which stay text then: a server's Swagger does not tell what a module's own
        fields read, so the last word is the server's.

    Raises
    ------
    InputError
        As `check_arguments` does.
    """
    texts: dict[str, list[str | None]] = {}
    by_name = {argument.name: argument for argument in declared}
    for name, text in pairs:
        texts.setdefault(find_argument(name, declared, dashes).name, []).append(text)
    values: dict[str, JsonValue] = {}
    for name, said in texts.items():
        try:
            values[name] = parse_value(by_name[name], said, f"{dashes}{name}", cwd)
        except InputError as error:
            if in_doubt is None or None in said:
                raise
            in_doubt.append(error)
            values[name] = said[0] if len(said) == 1 else list(said)
    _check_required(declared, {*values, *given}, dashes)
    return values


def find_argument(name: str, declared: Sequence[Argument], dashes: str = "--") -> Argument:
    """Return the declared argument of a name; `-` and `_` in it are the same.

    Raises
    ------
    InputError
        The module has none of this name.
    """
    by_name = {argument.name: argument for argument in declared}
    if name in by_name:
        return by_name[name]
    alike = {argument.name.replace("-", "_"): argument for argument in declared}
    if name.replace("-", "_") in alike:
        return alike[name.replace("-", "_")]
    folded = {candidate.replace("-", "_").lower(): candidate for candidate in by_name}
    near = difflib.get_close_matches(name.replace("-", "_").lower(), folded, n=1, cutoff=0.6)
    known = ", ".join(sorted(by_name)[:_MOST_NAMES]) + (
        ", …; `deephpc module show`" if len(by_name) > _MOST_NAMES else ""
    )
    if name == "help":
        hint = "`deephpc module show TARGET` shows its arguments"
    elif near:
        hint = f"did you mean {dashes}{folded[near[0]]}?"
    else:
        hint = f"it takes {known}" if known else "it takes no arguments"
    raise InputError(f"the module has no argument {dashes}{name}", hint)


def _pairs(words: Sequence[str], declared: Sequence[Argument]) -> list[tuple[str, str | None]]:
    """Split words into names and texts; None for a flag."""
    pairs: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-h":
            find_argument("help", ())
        if not word.startswith("--") or word == "--":
            raise InputError(f"{word!r} belongs to no argument", "write each as --name value or --name=value")
        name, equals, text = word.removeprefix("--").partition("=")
        if equals:
            pairs.append((name, text))
            continue
        off = _switched_off(name, declared)
        if off is not None:
            pairs.append((off, "false"))
        elif rest and _is_value_of(find_argument(name, declared), rest[0]):
            pairs.append((name, rest.pop(0)))
        else:
            pairs.append((name, None))
    return pairs


def _switched_off(name: str, declared: Sequence[Argument]) -> str | None:
    """Return the flag that `no-NAME` switches off, when that is not an argument itself."""
    names = {argument.name.replace("-", "_"): argument for argument in declared}
    folded = name.replace("-", "_")
    flag = names.get(folded.removeprefix("no_"))
    return flag.name if folded not in names and flag is not None and flag.type == "bool" else None


def _is_value_of(argument: Argument, word: str) -> bool:
    """Whether a word behind `--name` is its value; negative numbers are, other words with a dash in front are not."""
    return not word.startswith("-") or word == "-" or (argument.type != "bool" and _NEGATIVE.match(word) is not None)


def _check_required(declared: Sequence[Argument], given: set[str], dashes: str) -> None:
    missing = [argument for argument in declared if argument.required and argument.name not in given]
    if missing:
        words = [_word(argument, dashes) for argument in missing]
        raise InputError(f"the module needs {', '.join(words)}", f"add {words[0]}={_value(missing[0])}")


def _word(argument: Argument, dashes: str) -> str:
    """Return how an argument is written: files of a prediction have an option of their own."""
    return f"{'--input ' if argument.type == 'file' and dashes == '--arg ' else dashes}{argument.name}"


def _value(argument: Argument) -> str:
    return f"{'FILE' if argument.type == 'file' else 'VALUE'} ({describe_argument(argument)})"
