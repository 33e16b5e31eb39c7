"""Reads the remotes of the user's rclone configuration: its file and its `RCLONE_CONFIG_…` variables.

Source: rclone 1.60, https://rclone.org/docs/#config-file and #environment-variables; fs/config/config.go for the order
of places, where a variable wins over the file.
"""

import configparser
from collections.abc import Mapping
from pathlib import Path

from deephpc.errors import InputError

_PREFIX = "RCLONE_CONFIG_"
_NOT_REMOTES = frozenset({"RCLONE_CONFIG_DIR", "RCLONE_CONFIG_PASS"})
_ENCRYPTED = "RCLONE_ENCRYPT_"
_NO_FILE = frozenset({"", "/notfound"})


def load_remotes(environ: Mapping[str, str], home: Path) -> dict[str, dict[str, str]]:
    """Return the options of every remote in the file, passwords as they stand there; empty where there is no file.

    Raises
    ------
    InputError
        The file cannot be read, is encrypted, or is no configuration.
    """
    path = config_file(environ, home)
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(
            f"cannot read rclone's configuration {path}: {reason}", "mend it, or set RCLONE_CONFIG"
        ) from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> dict[str, dict[str, str]]:
    """Read the text of an rclone.conf.

    Raises
    ------
    InputError
        It is encrypted, or is no configuration; the message quotes none of it.
    """
    if any(line.startswith(_ENCRYPTED) for line in text.splitlines()[:5]):
        raise InputError(
            f"{where} is encrypted", "remove its password by `rclone config`, or set RCLONE_CONFIG_<REMOTE>_… variables"
        )
    parser = configparser.RawConfigParser(
        strict=False, delimiters=("=",), comment_prefixes=("#", ";"), default_section="\0", allow_no_value=True
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next((at for at, _ in getattr(error, "errors", [])), "?")
        raise InputError(f"{where} is not an rclone configuration: line {line}", "see `rclone config show`") from error
    return {name: {key: value or "" for key, value in parser.items(name)} for name in parser.sections()}


def find_remote(
    name: str, remotes: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]
) -> dict[str, str] | None:
    """Return one remote's options, those of the environment over those of the file; None when neither knows it."""
    prefix = f"{_PREFIX}{name.upper()}_"
    said = {
        key[len(prefix) :].lower(): value
        for key, value in environ.items()
        if key.startswith(prefix) and len(key) > len(prefix) and key not in _NOT_REMOTES
    }
    if name not in remotes and "type" not in said:
        return None
    return {**remotes.get(name, {}), **said}


def remote_names(remotes: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of all remotes, those of variables in small letters."""
    found = {
        key.removeprefix(_PREFIX).removesuffix("_TYPE").lower()
        for key in environ
        if key.startswith(_PREFIX) and key.endswith("_TYPE") and len(key) > len(_PREFIX) + len("_TYPE")
    }
    known = {name.lower() for name in remotes}
    return tuple(sorted({*remotes, *(name for name in found if name not in known)}))


def config_file(environ: Mapping[str, str], home: Path) -> Path | None:
    """Say where the configuration lies; None when rclone is told to have none."""
    said = environ.get("RCLONE_CONFIG")
    if said is not None:
        return None if said in _NO_FILE else Path(said)
    xdg = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(xdg) if xdg.startswith("/") else home / ".config"
    places = (folder / "rclone" / "rclone.conf", home / ".config" / "rclone" / "rclone.conf", home / ".rclone.conf")
    return next((each for each in places if each.exists()), places[0])
