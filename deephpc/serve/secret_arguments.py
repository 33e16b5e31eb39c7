"""What a module declares a password: kept in one file of the run folder, starred wherever others may read (pure)."""

import json
from collections.abc import Collection, Mapping, Sequence

from pydantic import JsonValue

from deephpc.errors import InputError
from deephpc.serve.argument_values import render_value
from deephpc.serve.module_description import Argument

PRIVATE_ARGUMENTS = "secrets/arguments.json"
"""Where in its folder a run keeps what is secret of its arguments (jobscripts/deepaas_secrets.py)."""
STARS = "***"
"""What stands for a secret in the words of a training."""


def split_secrets(
    values: Mapping[str, JsonValue], declared: Sequence[Argument] | None, also: Collection[str] = ()
) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Return the values that may be shown, and those that may not.

    Parameters
    ----------
    also
        Names that are secret, whatever the module declares.
    """
    hidden = {each.name for each in declared or () if each.is_secret}.union(also)
    shown = {name: value for name, value in values.items() if name not in hidden}
    return shown, {name: value for name, value in values.items() if name in hidden}


def star_words(
    words: Sequence[str], declared: Sequence[Argument], also: Collection[str] = ()
) -> tuple[tuple[str, ...], dict[str, JsonValue]]:
    """Return words that `check_arguments` made with stars for what is secret, and that.

    Raises
    ------
    InputError
        Stars were given for a secret.
    """
    values: dict[str, JsonValue] = dict(_pair(word) for word in words)
    _, secrets = split_secrets(values, declared, also)
    for name in (name for name, value in secrets.items() if value == STARS):
        raise InputError(
            f"--{name}: {STARS} stands for a password that is not kept any more", f"submit it anew, with --{name}=VALUE"
        )
    return tuple(f"--{name}={STARS if name in secrets else value}" for name, value in values.items()), secrets


def fill_in(words: Sequence[str], secrets: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return words with the secrets where stars stand for them."""
    starred = {f"--{name}={STARS}": f"--{name}={render_value(value)}" for name, value in secrets.items()}
    return tuple(starred.get(word, word) for word in words)


def render_secrets(secrets: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the file that keeps secrets, by its path in the run folder; none where there are none. ASCII."""
    return {PRIVATE_ARGUMENTS: json.dumps(dict(secrets)) + "\n"} if secrets else {}


def parse_secrets(text: str | None) -> dict[str, JsonValue]:
    """Read that file; nothing where it is gone, or something else."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _pair(word: str) -> tuple[str, str]:
    name, _, text = word.removeprefix("--").partition("=")
    return name, text
