"""What deephpc keeps apart of a module's arguments, as passwords: in a file of the run folder, and in no command line.

Runs inside the image: Python 3.6 or later, standard library only.
"""

import json
import os

from deepaas_arguments import STARS, BadArgumentError, is_secret, render_value, sent_as

_FILE = os.path.join("secrets", "arguments.json")


def load_secrets(run):
    """Return what is kept apart of the arguments of a run, by name; nothing where nothing is, or this is no run."""
    path = os.path.join(run, _FILE)
    if not run or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def fill_in(words, secrets, arguments):
    """Return words with the secrets where stars stand for them; deephpc writes those as `--NAME=***`.

    Raises
    ------
    BadArgumentError
        Stars stand for a secret that is not kept any more.
    """
    names = {argument["name"] for argument in arguments if argument["is_secret"]}
    filled = []
    for word in words:
        name, _, text = word[2:].partition("=")
        if text == STARS and word.startswith("--") and name in secrets:
            filled.append("--%s=%s" % (name, render_value(secrets[name])))
        elif text == STARS and word.startswith("--") and name in names:
            raise BadArgumentError("--%s: its value was in %s of the run, and is not any more" % (name, _FILE))
        else:
            filled.append(word)
    return filled


def starred(given, fields, secrets):
    """Return what a method is called with, with stars for what the module declares secret or was kept apart."""
    hidden = {
        getattr(field, "attribute", None) or name
        for name, field in fields.items()
        if is_secret(field) or sent_as(name, field) in secrets
    }
    return {name: STARS if name in hidden else value for name, value in given.items()}
