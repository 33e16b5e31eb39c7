"""Where the user's files lie, and how a folder written with `~`, `$VARIABLES` or `{account}` becomes a path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deephpc.errors import InputError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
#: What our own lists of folders cannot hold: control characters, and bytes that are not UTF-8 text.
_NO_FOLDER = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
#: In file names Slurm replaces `%x` and drops backslashes (sbatch(1) of 24.11, "filename pattern").
_NO_WORK_DIR = re.compile(rf"{_NO_FOLDER.pattern}|[%\\]")


@dataclass(frozen=True, slots=True)
class UserPlaces:
    """The user's own places, by the XDG Base Directory Specification 0.8."""

    config_file: Path
    """config.toml; need not exist."""
    config_origin: str
    """Who chose that file."""
    sites_dir: Path
    """The user's site profiles; need not exist."""
    state_dir: Path
    """The record of jobs, when nothing else is said."""

    @property
    def config_is_asked_for(self) -> bool:
        """Whether the user named the settings file, so that it must exist."""
        return self.config_origin != "built-in"


def locate_user_places(config: Path | None, environ: Mapping[str, str], home: Path) -> UserPlaces:
    """Say where settings, sites and state lie; looks at no file."""
    folder = _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "deephpc"
    config_file, origin = folder / "config.toml", "built-in"
    if environ.get("DEEPHPC_CONFIG"):
        config_file, origin = Path(environ["DEEPHPC_CONFIG"]), "environment DEEPHPC_CONFIG"
    if config is not None:
        config_file, origin = config, "option --config"
    state_dir = _xdg(environ, "XDG_STATE_HOME", home / ".local" / "state") / "deephpc"
    return UserPlaces(config_file, origin, folder / "sites", state_dir)


def scratch_root(environ: Mapping[str, str], home: Path) -> tuple[Path, str]:
    """Choose the built-in home of runs and images: $SCRATCH, else $WORK, else the home folder; and say which."""
    for name in ("SCRATCH", "WORK"):
        if environ.get(name, "").startswith("/"):
            return Path(environ[name]), f"built-in, in ${name}"
    return home, "built-in, in the home folder"


def expand_folder(
    text: str, key: str, origin: str, *, environ: Mapping[str, str], home: Path, account: str | None
) -> Path:
    """Fill in `~`, `$NAME`, `${NAME}` and `{account}`.

    Parameters
    ----------
    key, origin
        The setting and where it was written, for the message.

    Raises
    ------
    InputError
        A variable is unset or empty, no account is known, or the result is not absolute or cannot be written down.
    """
    said = f"{key} = {text!r} ({origin})"

    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not environ.get(name):
            raise InputError(
                f"{said} needs ${name}, which is not set",
                f"set {name} in your shell, or {key} in config.toml, or DEEPHPC_{key.upper()}",
            )
        return environ[name]

    path = _VARIABLE.sub(value_of, text)
    if "{account}" in path:
        if account is None:
            raise InputError(
                f"{said} needs your account (project), and none is set",
                'set `account = "…"` under [defaults] in config.toml, or SBATCH_ACCOUNT',
            )
        path = path.replace("{account}", account)
    if path == "~" or path.startswith("~/"):
        path = str(home) + path[1:]
    if not path.startswith("/"):
        raise InputError(f"{said} is not an absolute path", "begin it with /, ~/ or a variable such as $SCRATCH")
    bad = (_NO_WORK_DIR if key == "work_dir" else _NO_FOLDER).search(path)
    if bad:
        raise InputError(
            f"{said} has {bad[0]!r} in it, which job files cannot carry", "choose a folder with a plain name"
        )
    return Path(path)


def _xdg(environ: Mapping[str, str], name: str, fallback: Path) -> Path:
    """Return the folder a variable names; relative ones are ignored, as the specification says."""
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else fallback
