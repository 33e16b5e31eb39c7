"""Which files of a run's models are opened while a module works: the proof of which model answers.

Runs inside the image: Python 3.6 or later, on Linux. inotify(7) tells of each open of a file by a process of this node,
whatever path it takes.
"""

import contextlib
import ctypes
import itertools
import os
import struct

from deepaas_output import note, write_file

FOLDERS = "/deephpc/folders.list"
"""A module's folders of data and models, as `inside.sh` found them: `ROLE PATH` in each line."""
_MOST_FILES = 2000
"""The kernel grants a user 8192 watches where it grants few (fs.inotify.max_user_watches)."""
_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


def watch_models(folders_list=FOLDERS):
    """Return what notes opened models in RUN/opened-models.txt; None outside of a run, or where it cannot be known."""
    output = os.environ.get("DEEPHPC_OUTPUT_DIR")
    if not output or not os.path.exists(folders_list):
        return None
    with open(folders_list, encoding="utf-8", errors="surrogateescape") as file:
        pairs = [line.rstrip("\n").split(" ", 1) for line in file]
    models = [pair[1] for pair in pairs if pair[0] == "models"]
    try:
        return OpenedFiles(models, os.path.join(os.path.dirname(output), "opened-models.txt"))
    except (OSError, AttributeError) as error:  # no file is left to watch, or a C library without inotify
        note("which models are opened is not noted: %s" % error)
        return None


class OpenedFiles:
    """Notes which of the files below some folders are opened from now on.

    Raises
    ------
    OSError
        There are no such files, too many, or the kernel refuses to watch them.
    """

    def __init__(self, folders, file):
        self._file, self._opened, self._names = file, set(), {}
        names = {}
        for folder in folders:
            for path in itertools.islice(files_below(folder), _MOST_FILES + 1):
                names[path] = os.path.relpath(path, folder)
        if not 0 < len(names) <= _MOST_FILES:
            raise OSError("%s files in %s" % ("too many" if names else "no", ", ".join(folders)))
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for (
            path,
            name,
        ) in names.items():  # files, not their folders: what is bound lies in a folder of its own elsewhere
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN)
            if watch < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)
            self._names.setdefault(watch, name)
        self._write()  # nothing was opened yet, which is something else than not known

    def write(self):
        """Bring the file up to date; on a full disk it stays as it is."""
        before = len(self._opened)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(os.read(self._descriptor, 1 << 16))
        if len(self._opened) > before:
            self._write()

    def _take(self, events):
        position = 0
        while position < len(events):
            watch, _, _, length = _EVENT.unpack_from(events, position)
            position += _EVENT.size + length
            if watch in self._names:
                self._opened.add(self._names[watch])

    def _write(self):
        lines = "".join("%s\n" % name.replace("\n", "?") for name in sorted(self._opened))
        try:
            write_file(self._file, lines.encode("utf-8", "surrogateescape"))
        except OSError as error:
            note("which models are opened cannot be noted: %s" % error)


def files_below(folder):
    """Yield the paths of all files below a folder, of those that links lead to as well."""
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                yield path
