"""Text → value with the line of every key: YAML and JSON from strangers, bounded in size, depth and number.

YAML is read from the parser's events and not composed: libyaml's composer recurses in C, so that a file of nothing but
opening brackets ends the process (seen with PyYAML 6.0.3), and anchors can make a small file huge.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from deephpc.catalogue.finding import Finding

MAX_BYTES = 1 << 20
_MAX_DEPTH = 40
_MAX_NODES = 20_000
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq", "int", "float", "bool", "null"))
_TRUE = frozenset({"true", "yes", "on"})
_JSON_TOKEN = re.compile(r'[\s,:]*("(?:[^"\\]|\\.)*"|[{}\[\]]|[^\s,:{}\[\]"]+)')

Path = tuple[str | int, ...]


class UnreadableError(ValueError):
    """The text is not what its form promises.

    Parameters
    ----------
    line
        Where, counted from 1.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason

    def finding(self) -> Finding:
        """Return it as an error about the whole file."""
        return Finding(level="error", line=self.line, message=self.reason)


@dataclass
class Document:
    """A value and where its parts stand."""

    value: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    """Line of each key and item, counted from 1."""
    repeated: list[Path] = field(default_factory=list)
    """Keys written twice; the later one counts."""

    def line(self, path: Path) -> int:
        """Return the line of a key, or of the nearest thing around it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_document(text: str, name: str) -> Document:
    """Read YAML, or JSON where the file's name ends in `.json`.

    Raises
    ------
    UnreadableError
        It does not parse, or is deeper or larger than metadata ever is.
    """
    if len(text) > MAX_BYTES:
        raise UnreadableError(1, f"larger than {MAX_BYTES} characters")
    return _parse_json(text) if name.endswith(".json") else _parse_yaml(text)


def decode(raw: bytes) -> str:
    """Return the text of a file.

    Raises
    ------
    UnreadableError
        It is not UTF-8; the line is that of the first bad byte.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(raw[: error.start].count(b"\n") + 1, "not UTF-8 text") from error


def _parse_json(text: str) -> Document:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UnreadableError(error.lineno, f"not valid JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(1, f"not valid JSON: {error}") from error
    document = Document(value)
    _locate_json(text, document)
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _locate_json(text: str, document: Document) -> None:
    """Note the line of every key and item of a JSON text that is known to be valid."""
    builder = _Builder(document)
    line, counted = 1, 0
    for match in _JSON_TOKEN.finditer(text):
        line += text.count("\n", counted, match.start(1))
        counted = match.start(1)
        word = match[1]
        if word in "{[":
            builder.open(is_table=word == "{", line=line)
        elif word in "}]":
            builder.close()
        else:
            builder.add(json.loads(word), line)


def _parse_yaml(text: str) -> Document:
    document = Document()
    builder = _Builder(document)
    try:
        for event in _events(text):
            _take(event, builder)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(mark.line + 1 if mark else 1, f"not valid YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise UnreadableError(1, f"not valid YAML: {str(error).splitlines()[0]}") from error
    document.value = builder.root
    return document


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_LOADER)


def _take(event: yaml.Event, builder: "_Builder") -> None:
    line = event.start_mark.line + 1 if event.start_mark else 1
    tag = getattr(event, "tag", None)
    if tag not in (None, "!") and tag not in _CORE_TAGS:
        raise UnreadableError(line, f"the tag {tag} is not read here")
    if isinstance(event, yaml.AliasEvent):
        raise UnreadableError(line, f"the alias *{event.anchor} is not read here; write the value out")
    if isinstance(event, yaml.DocumentStartEvent) and builder.is_done:
        raise UnreadableError(line, "a second YAML document begins here")
    if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
        builder.open(is_table=isinstance(event, yaml.MappingStartEvent), line=line)
    elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
        builder.close()
    elif isinstance(event, yaml.ScalarEvent):
        builder.add(_scalar(event), line)


def _scalar(event: yaml.ScalarEvent) -> object:
    """Return a scalar by YAML 1.1, save that dates stay text, as both metadata schemas have them."""
    text = str(event.value)
    if not event.implicit[0]:  # quoted, or tagged as text
        return text
    resolved: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call] # PyYAML's
    tag = resolved.rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in _TRUE
    try:
        if tag == "int":
            return int(text.replace("_", ""), 0)
        number = float(text.replace("_", "")) if tag == "float" else math.nan
    except ValueError:
        return text  # base 60, octal with a bare 0: nobody means these
    return number if math.isfinite(number) else text


_RESOLVER = yaml.resolver.Resolver()


class _Builder:
    """Builds a value out of opened and closed containers and plain values, without recursion."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.root: object = None
        self.is_done = False
        self._stack: list[tuple[dict[str, object] | list[object], Path]] = []
        self._keys: list[str | None] = []
        self._count = 0

    def open(self, *, is_table: bool, line: int) -> None:
        if len(self._stack) >= _MAX_DEPTH:
            raise UnreadableError(line, f"nested deeper than {_MAX_DEPTH} levels")
        container: dict[str, object] | list[object] = {} if is_table else []
        path = self._place(container, line)
        self._stack.append((container, path))
        self._keys.append(None)

    def close(self) -> None:
        self._stack.pop()
        self._keys.pop()
        self.is_done = not self._stack

    def add(self, value: object, line: int) -> None:
        if self._stack and isinstance(self._stack[-1][0], dict) and self._keys[-1] is None:
            self._take_key(str(value), line)
            return
        self._place(value, line)
        self.is_done = not self._stack

    def _take_key(self, key: str, line: int) -> None:
        container, path = self._stack[-1]
        where = (*path, key)
        if key in container:
            self.document.repeated.append(where)
        self.document.lines[where] = line
        self._keys[-1] = key

    def _place(self, value: object, line: int) -> Path:
        """Put a value where it belongs and return its path."""
        self._count += 1
        if self._count > _MAX_NODES:
            raise UnreadableError(line, f"more than {_MAX_NODES} values")
        if not self._stack:
            self.root = value
            return ()
        container, path = self._stack[-1]
        if isinstance(container, list):
            where: Path = (*path, len(container))
            self.document.lines[where] = line
            container.append(value)
            return where
        key = self._keys[-1]
        if key is None:
            raise UnreadableError(line, "a list or a table cannot be a key")
        container[key] = value
        self._keys[-1] = None
        return (*path, key)
