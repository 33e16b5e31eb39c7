"""What the driver of a DEEPaaS module leaves for others: whole files, lines of results, notes on stderr."""

import contextlib
import json
import os
import sys


def note(text):
    """Say something on stderr."""
    sys.stderr.write("deepaas_module: %s\n" % text)
    sys.stderr.flush()


@contextlib.contextmanager
def stdout_on_stderr():
    """Have stderr get what is printed meanwhile, by any library."""
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(answer, 1)
        os.close(answer)


def write_file(path, content):
    """Write a file in one step: readers see the old one or the new one."""
    folder = os.path.dirname(os.path.abspath(path))
    part = os.path.join(folder, ".%s.%d" % (os.path.basename(path)[:200], os.getpid()))
    os.makedirs(folder, exist_ok=True)
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def append_line(path, value):
    """Append a JSON line in one write, on a line of its own even after one that was cut off."""
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(value).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path):
    """Yield the objects of a file of JSON lines, without those that were cut off when a job was killed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
