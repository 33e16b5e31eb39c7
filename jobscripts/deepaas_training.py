"""Trains a DEEPaaS module in the job's own process, with the arguments as its API would bring them.

Runs inside the image: Python 3.6 or later and the image's own DEEPaaS.
"""

import atexit
import contextlib
import ctypes
import json
import mimetypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
import uuid
from datetime import datetime

import deepaas_arguments
from deepaas_answers import extension_of, told_error
from deepaas_arguments import STARS, BadArgumentError, is_secret, json_safe
from deepaas_loading import fields_of, has_method
from deepaas_output import note, write_file
from deepaas_secrets import fill_in, starred

FAILED, TERMINATED = 1, 128 + signal.SIGTERM
_LEAVES_WITHIN_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


class Terminated(SystemExit):
    """SIGTERM came; `finally` blocks and exit handlers still run."""


def train(module, words, secrets, result):
    """Train with a user's words and keep what DEEPaaS says of it in the file `result`; return the exit code.

    The training is called in this process, so that signals reach it. Of several ranks of a job the first one alone
    keeps what it says.

    Raises
    ------
    BadArgumentError
        When the words do not fit the module, before anything is started.
    """
    if not has_method(module, "train"):
        raise BadArgumentError("the module %s cannot be trained" % module.name)
    fields = fields_of(module, "train")
    arguments = deepaas_arguments.describe_arguments(fields)
    values = deepaas_arguments.parse_words(fill_in(words, secrets, arguments), arguments)
    accept = deepaas_arguments.choose_accept(values.get("accept"), arguments)
    if accept and any(each["name"] == "accept" and each["required"] for each in arguments):
        values["accept"] = accept  # ours to fill, as in a prediction
    given = load_values(_as_sent(values, arguments), fields)
    check_arrived(values, given, fields)
    _configure()
    os.makedirs(os.path.dirname(os.path.abspath(result)), exist_ok=True)
    began = datetime.now()
    try:
        output = module.plugin.train(**given)
    except Terminated:
        raise
    except SystemExit as error:
        return _failed("the training of %s ended itself with %s, without a result" % (module.name, error.code))
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's module raises
        traceback.print_exc()
        return _failed("the training of %s failed: %s" % (module.name, told_error(error)))
    if os.environ.get("DEEPHPC_RANK", "0") == "0":  # launch_rank.sh
        output = _kept(output, given.get("accept"), os.path.dirname(os.path.abspath(result)))
        write_file(result, json.dumps(_status(starred(given, fields, secrets), output, began)).encode())
    return 0


def load_values(texts, fields):
    """Return what a module's method is called with: its own fields read the texts and add their defaults.

    Raises
    ------
    BadArgumentError
        With what they say.
    """
    import marshmallow
    import webargs.core

    make = getattr(webargs.core, "dict2schema", None) or marshmallow.Schema.from_dict  # webargs 5, and since
    try:
        loaded = make(fields)().load(texts)
    except marshmallow.ValidationError as error:
        raise BadArgumentError("; ".join(_refusals(error.messages, texts, fields))) from error
    values = loaded.data if isinstance(loaded, tuple) else loaded  # marshmallow 2
    if isinstance(loaded, tuple) and loaded.errors:
        raise BadArgumentError("; ".join(_refusals(loaded.errors, texts, fields)))
    return dict(values)


def check_arrived(values, given, fields):
    """Check that everything that was asked for is among what the module's method is called with.

    Raises
    ------
    BadArgumentError
        With the names of what the module's own fields leave out without a word.
    """
    arrives = {
        deepaas_arguments.sent_as(name, field): getattr(field, "attribute", None) or name
        for name, field in fields.items()
    }
    lost = sorted(name for name in values if arrives[name] not in given)
    if lost:
        raise BadArgumentError("the module's own fields leave out --%s" % ", --".join(lost))


def _refusals(messages, texts, fields):
    hidden = {deepaas_arguments.sent_as(name, field) for name, field in fields.items() if is_secret(field)}
    for name, said in messages.items():
        told = " ".join(map(str, said)) if isinstance(said, list) else json.dumps(said, ensure_ascii=False)
        text = STARS if name in hidden else deepaas_arguments.render_value(texts.get(name, ""))
        yield "--%s %s: %s" % (name, text, told)


def end_children_at_exit():
    """Have what a training leaves running, such as its TensorBoard, end with this process; to be called first of all.

    Exit handlers of libraries, which may need their own helpers to send what is left, run before: the last comes first.
    """
    with contextlib.suppress(Exception):  # children of those that end become ours (prctl(2))
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    atexit.register(_end_children)


def end_workers():
    """End the processes of multiprocessing that are left: Python would wait for them, whatever they do."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises when a worker of its loaders is ended
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            os.kill(worker.pid, signal.SIGKILL)
        worker.join()


def _end_children():
    told, began = set(), time.monotonic()
    while time.monotonic() < began + 2 * _LEAVES_WITHIN_S:
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_ours_to_end(pid)]
        if not left:
            return
        late = time.monotonic() > began + _LEAVES_WITHIN_S
        for pid in left if late else set(left) - told:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL if late else signal.SIGTERM)
        told.update(left)
        time.sleep(0.05)


def _is_ours_to_end(pid):
    """Return whether a process is a living child of ours; one of Python's own ends by itself (proc(5), fields 3, 4)."""
    try:
        with open("/proc/%s/stat" % pid) as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            words = file.read()
    except OSError:
        return False
    return int(parent) == os.getpid() and state != "Z" and b"resource_tracker" not in words


def _kept(output, accept, folder):
    """Return what a training returned, of a file or bytes the name under which it is kept in the run's output."""
    if not (hasattr(output, "read") or isinstance(output, (bytes, bytearray))):
        return output
    content = output.read() if hasattr(output, "read") else output
    content = content.encode() if isinstance(content, str) else bytes(content)
    name = "answer" + extension_of(accept, content)
    write_file(os.path.join(folder, name), content)
    return name


def _status(given, output, began):
    """Return what DEEPaaS's API says of a training that is done (deepaas/api/v2/train.py, 2.6.0)."""
    ended = datetime.now()
    result = {"output": json_safe(output), "finish_date": str(ended), "duration": str(ended - began)}
    return {"date": str(began), "args": json_safe(given), "uuid": uuid.uuid4().hex, "status": "done", "result": result}


def _configure():
    """Have DEEPaaS set up its options and its log, which modules use; the words are its command's, not ours."""
    sys.argv = ["deepaas-run"]
    try:
        from deepaas import config

        config.config_and_logging(sys.argv)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- of old releases; no training depends on it
        note("DEEPaaS cannot be configured: %s: %s" % (type(error).__name__, error))


def _as_sent(values, arguments):
    """Return values as the API would bring them; a file as DEEPaaS gives it to a module."""
    sent = deepaas_arguments.render_texts(values, arguments)
    for name in {each["name"] for each in arguments if each["type"] == "file"} & set(values):
        from deepaas.model.v2.wrapper import UploadedFile  # not in every release

        path, kind = sent[name], mimetypes.guess_type(sent[name])[0]
        sent[name] = UploadedFile(name, path, kind, os.path.basename(path))
    return sent


def _failed(text):
    note(text)
    return FAILED
