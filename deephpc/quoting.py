"""Quotes the words of users for bash: what job scripts and the files beside them are made with."""

import re
import shlex

_NEEDS_ESCAPE = re.compile(r"[^\x20-\x7e\u00a1-\U0010ffff]|[\u0085\u2028\u2029\ufeff\ud800-\udfff]")


def quote_for_bash(text: str) -> str:
    r"""Quote one word for bash so that it reads back exactly, on one line.

    Words of visible characters get single quotes where they need any; others `$'…'` with octal escapes, since Slurm
    refuses scripts with carriage returns and a newline would hide in a listing.
    """
    if not _NEEDS_ESCAPE.search(text):
        return shlex.quote(text)
    pieces = (_escaped(character) for character in text)
    return "$'" + "".join(pieces) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if _NEEDS_ESCAPE.match(character):
        return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
    return character
