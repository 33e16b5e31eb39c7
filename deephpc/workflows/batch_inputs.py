"""What a batch of predictions is made for: `--input NAME=…` becomes an ordered list of inputs, each once."""

import glob
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deephpc.errors import InputError
from deephpc.model import Model
from deephpc.serve.module_arguments import find_argument
from deephpc.serve.module_description import Argument

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_HOW = "quote it: --input 'NAME=data/*.png'; a folder stands for the files in it, @FILE for a list"


class BatchInput(Model):
    """One prediction to make."""

    key: str
    """Its name, for ever: it follows from the values alone, and may name a file."""
    args: Mapping[str, str]
    """Argument of the module → value: a file's absolute path, or text."""


@dataclass(frozen=True, slots=True)
class _Values:
    """What one name stands for."""

    name: str
    values: tuple[str, ...]
    is_list: bool
    """Whether all were read from lists, in an order of the user's own."""
    is_one: bool = False
    """Whether it is one file that was named itself: beside many of another name it is for all of them."""


def check_inputs(options: Sequence[str], cwd: Path) -> None:
    """Check the form of --input and that there is something, before the module is known: its image may be large.

    Raises
    ------
    InputError
        An option is not NAME=FILES, a pattern meets nothing, or a file or list cannot be read.
    """
    if not options:
        raise InputError("there is no input", _HOW)
    for option in options:
        name, text = _parts(option)
        if text.startswith("@"):
            _listed(text[1:], option, "text", cwd)  # whether its lines are files, the module says
        else:
            _files(name, text, option, "file", cwd)


def load_inputs(options: Sequence[str], declared: Sequence[Argument] | None, cwd: Path) -> tuple[BatchInput, ...]:
    """Find the inputs, in the order they were named, files of one pattern sorted.

    The same NAME given again adds to it. Several NAMEs are one input together: one value each, files of the same name
    but for its ending, or the same lines of lists; one value beside many is for all of them.

    Parameters
    ----------
    declared
        The module's arguments, where known.

    Raises
    ------
    InputError
        A pattern meets nothing, a file cannot be read, a name is not the module's, or NAMEs do not pair up.
    """
    if not options:
        raise InputError("there is no input", _HOW)
    said: dict[str, list[_Values]] = {}
    for option in options:
        found = _load_option(option, declared, cwd)
        said.setdefault(found.name, []).append(found)
    columns = [
        _Values(
            name,
            tuple(value for part in parts for value in part.values),
            all(part.is_list for part in parts),
            len(parts) == 1 and parts[0].is_one,
        )
        for name, parts in said.items()
    ]
    inputs = [BatchInput(key=input_key(args), args=args) for args in _rows(columns)]
    return tuple({each.key: each for each in inputs}.values())


def input_key(args: Mapping[str, str]) -> str:
    """Return the name of an input: what people know its first argument by, and a hash of all values (pure)."""
    digest = hashlib.sha256(json.dumps(sorted(args.items())).encode()).hexdigest()
    plain = unicodedata.normalize("NFKD", _stem(args[min(args)])).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")[:40].rstrip("-.")
    return f"{readable}-{digest[:12]}" if readable else digest[:12]


def file_arguments(options: Sequence[str], declared: Sequence[Argument] | None) -> tuple[str, ...]:
    """Return the names whose values are files here: those of patterns, and what the module declares so (pure)."""
    kinds = {argument.name: argument.type for argument in declared} if declared is not None else None
    found = set()
    for option in options:
        name, _, text = option.partition("=")
        name = name if declared is None else find_argument(name, declared, "--input ").name
        if not text.startswith("@") or kinds is None or kinds[name] == "file":
            found.add(name)
    return tuple(sorted(found))


def check_text(text: str, where: str) -> None:
    """Check that a text can be written down: Python carries bytes that are not UTF-8 as lone surrogates.

    Raises
    ------
    InputError
        It cannot.
    """
    if re.search("[\0\ud800-\udfff]", text):
        raise InputError(f"{where}: {text!r} is not valid UTF-8", "rename the file")


def _load_option(option: str, declared: Sequence[Argument] | None, cwd: Path) -> _Values:
    """Return the argument an option names, and its values."""
    name, text = _parts(option)
    kind = "file"
    if declared is not None:
        argument = find_argument(name, declared, "--input ")
        name, kind = argument.name, argument.type
    if text.startswith("@"):
        return _Values(name, tuple(_listed(text[1:], option, kind, cwd)), is_list=True)
    files = tuple(_files(name, text, option, kind, cwd))
    return _Values(name, files, is_list=False, is_one=files == (_absolute(text, cwd),))


def _parts(option: str) -> tuple[str, str]:
    name, equals, text = option.partition("=")
    if not equals or not name or not text:
        raise InputError(f"--input {option!r} is not NAME=FILES", _HOW)
    check_text(text, f"--input {option!r}")
    return name, text


def _files(name: str, text: str, option: str, kind: str, cwd: Path) -> list[str]:
    """Return the files that a text names; there are some, and they can be read."""
    files = _found(text, option, cwd)
    if not files:
        hint = _HOW if glob.has_magic(text) or _is_folder(_absolute(text, cwd)) else f"there is no {text} here"
        if kind != "file":
            hint = f"{name} takes {kind}: --arg {name}={text} is one for all inputs, {name}=@FILE a value on each line"
        raise InputError(f"--input {option!r} meets no file", hint)
    for file in files:
        _check_file(file, option)
    return files


def _listed(name: str, option: str, kind: str, cwd: Path) -> list[str]:
    """Read a list: a value on each line, or each ended by NUL as `find -print0` does; files count from here."""
    path = _from_home(name, cwd)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--input {option!r}: {path} is not UTF-8 text", "save the list as UTF-8") from error
    except OSError as error:
        raise InputError(f"--input {option!r}: {path}: {error.strerror}", "check the path of the list") from error
    lines = text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]
    values = [line for line in lines if line]
    if not values:
        raise InputError(f"--input {option!r}: the list {path} is empty", "write one value on each line")
    if kind != "file":
        return values
    for value in values:
        if _ADDRESS.match(value):
            raise _not_here(value, option)
    files = [_absolute(value, cwd) for value in values]
    for file in files:
        _check_file(file, option)
    return files


def _not_here(address: str, option: str) -> InputError:
    return InputError(
        f"--input {option!r}: {address} is an address, and the module takes files",
        f"bring it first: `deephpc data get {address} .`",
    )


def _found(text: str, option: str, cwd: Path) -> list[str]:
    """Return the files that a path, a folder or a pattern names; what is no file is passed over, hidden files too."""
    if _ADDRESS.match(text):
        raise _not_here(text, option)
    path = _absolute(text, cwd)
    if _is_folder(path):
        found = _entries(path, option)
    elif os.path.lexists(path):
        return [path]
    else:
        pattern = str(_from_home(text, Path(glob.escape(str(cwd)))))
        found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - pathlib has other rules for ** and hidden files
    files = sorted({_absolute(each, cwd) for each in found if not _is_folder(each)})
    for file in files:
        check_text(file, f"--input {option!r}")
    return files


def _entries(folder: str, option: str) -> list[str]:
    try:
        return [str(each) for each in Path(folder).iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise InputError(f"--input {option!r}: {folder}: {error.strerror}", "check the folder's permissions") from error


def _absolute(text: str, cwd: Path) -> str:
    """Return an absolute path; `..` leads where the system would go, also through links."""
    path = _from_home(text, cwd)
    return str(path.parent.resolve() / path.name) if ".." in path.parts else str(path)


def _from_home(text: str, cwd: Path) -> Path:
    return cwd / os.path.expanduser(text)  # noqa: PTH111 - pathlib's raises for users it does not know


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # a name longer than names may be
        return False


def _check_file(file: str, option: str) -> None:
    """Check that a file can be read; a folder or a broken link in a list cannot."""
    try:
        if Path(file).is_dir():
            reason = "it is a folder"
        elif os.access(file, os.R_OK):
            return
        else:
            reason = "you may not read it" if Path(file).exists() else "it is not there"
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    raise InputError(f"--input {option!r}: {file!r}: {reason}", "take it out, or mend it, and try again")


def _rows(columns: Sequence[_Values]) -> list[dict[str, str]]:
    for_all = {column.name: column.values[0] for column in columns if column.is_one}
    many = [column for column in columns if not column.is_one]
    names = [column.name for column in columns]
    rows = [{**for_all, **row} for row in (_rows_of_many(many) if many else [{}])]
    return [{name: row[name] for name in names} for row in rows]


def _rows_of_many(columns: Sequence[_Values]) -> list[dict[str, str]]:
    first, *others = columns
    if not others:
        return [{first.name: value} for value in first.values]
    if all(len(column.values) == 1 for column in columns):
        return [{column.name: column.values[0] for column in columns}]
    if all(column.is_list for column in columns):
        return _rows_by_line(columns)
    by_stem = [_by_stem(column) for column in columns]
    for column, stems in zip(columns[1:], by_stem[1:], strict=True):
        odd = sorted(by_stem[0].keys() ^ stems.keys())
        if odd:
            has, lacks = (first.name, column.name) if odd[0] in by_stem[0] else (column.name, first.name)
            raise InputError(
                f"{has} has {odd[0]!r}, and {lacks} has no file of that name ({len(odd)} without a partner)",
                "files of several --input belong together by their names; what is the same for all goes into --arg",
            )
    return [{column.name: stems[stem] for column, stems in zip(columns, by_stem, strict=True)} for stem in by_stem[0]]


def _rows_by_line(columns: Sequence[_Values]) -> list[dict[str, str]]:
    first = columns[0]
    for column in columns[1:]:
        if len(column.values) != len(first.values):
            raise InputError(
                f"the list of {first.name} has {len(first.values)} lines, that of {column.name} {len(column.values)}",
                "the same lines of the lists belong together",
            )
    names = [column.name for column in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.values for column in columns), strict=True)]


def _by_stem(column: _Values) -> dict[str, str]:
    values = tuple(dict.fromkeys(column.values))
    twice = [stem for stem, count in Counter(map(_stem, values)).items() if count > 1]
    if twice:
        raise InputError(
            f"{column.name} has {twice[0]!r} more than once, so it is not clear what belongs to it",
            "give lists instead, whose lines belong together: NAME=@FILE",
        )
    return {_stem(value): value for value in values}


def _stem(value: str) -> str:
    """Return a file's name without its folder and ending; `.gz` and its like are no ending of their own."""
    name = value.rstrip("/").rpartition("/")[2]
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return Path(name).stem
