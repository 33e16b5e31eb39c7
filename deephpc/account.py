"""The account this process runs under: what Slurm goes by too, and no variable can change."""

import grp
import os
import pwd
from contextlib import suppress


def account_name() -> str:
    """Return the name of the account; its number where it has no name, as in containers (getpwuid(3))."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def account_groups() -> frozenset[str]:
    """Return the names of the account's groups; those without a name are left out."""
    names = set()
    for number in (os.getegid(), *os.getgroups()):
        with suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return frozenset(names)


def account_home() -> str:
    """Return the account's home folder as the password database has it, or `/`."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"
