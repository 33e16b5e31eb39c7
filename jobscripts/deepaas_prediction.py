"""Uses a DEEPaaS module on many inputs: loaded once, one file for each answer, resumable, one failure stops nothing.

Runs inside the image: Python 3.6 or later and the image's own DEEPaaS.
"""

import asyncio
import hashlib
import json
import os
import re
import signal
import time
from collections import namedtuple

import deepaas_arguments
import deepaas_server
from deepaas_answers import body_error, extension_of, fits
from deepaas_arguments import BadArgumentError
from deepaas_loading import fields_of, has_method
from deepaas_output import append_line, note, read_lines, write_file
from deepaas_secrets import load_secrets
from deepaas_training import FAILED, TERMINATED

_INLINE_BYTES = 64 << 10
"""Up to this size an answer in JSON is repeated in its line of results."""
_LARGEST_ERROR_BYTES = 1 << 20
"""Up to this size an answer in JSON may be no more than an error."""

Input = namedtuple("Input", "key values digest")
Answers = namedtuple("Answers", "folder results accept is_asked arguments")


def predict(module, inputs_file, folder, results=None, accept=None):
    """Use the module on every input of a file and return the exit code: 1 when an input failed.

    A line of `results` says of each input: key, ok, file (in `folder`), seconds, error, result (short JSON), digest (of
    its arguments). An input whose last line is ok, whose arguments are the same and whose file is there is left out.
    """
    if not has_method(module, "predict"):
        raise BadArgumentError("the module %s cannot predict" % module.name)
    arguments = deepaas_arguments.describe_arguments(fields_of(module, "predict"))
    is_asked, accept = bool(accept), deepaas_arguments.choose_accept(accept, arguments) or accept
    secrets = load_secrets(os.path.dirname(os.path.dirname(os.path.abspath(inputs_file))))  # no digest has them
    inputs = [each._replace(values=dict(secrets, **each.values)) for each in load_inputs(inputs_file)]
    os.makedirs(folder, exist_ok=True)
    answers = Answers(folder, results or os.path.join(folder, "results.jsonl"), accept, is_asked, arguments)
    done = load_done(answers)
    left = [each for each in inputs if (each.key, each.digest) not in done]
    note("%d inputs, %d of them done already" % (len(inputs), len(inputs) - len(left)))
    return deepaas_server.run_loop(_predict_all(module, left, answers)) if left else 0


def load_inputs(path):
    """Return the inputs in a file with a JSON object in each line: `key`, and `args` by name."""
    inputs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                one = json.loads(line)
                key, values = str(one["key"]), dict(one["args"])
            except (ValueError, KeyError, TypeError) as error:
                told = "%s, line %d is no object with key and args: %s" % (path, number, error)
                raise BadArgumentError(told) from error
            text = json.dumps(values, sort_keys=True)
            inputs.append(Input(key, values, hashlib.sha256(text.encode()).hexdigest()[:16]))
    if len({each.key for each in inputs}) < len(inputs):
        raise BadArgumentError("%s has two inputs with the same key" % path)
    return inputs


def load_done(answers):
    """Return key and digest of the inputs whose last line says ok and whose file is there."""
    last = {one["key"]: one for one in read_lines(answers.results) if "key" in one}
    good = [one for one in last.values() if one.get("ok") and one.get("file")]
    return {
        (one["key"], one.get("digest")) for one in good if os.path.exists(os.path.join(answers.folder, one["file"]))
    }


def file_name(key):
    """Return a file's name for a key: the key itself when it can be one, else a readable part and a hash."""
    if re.match(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z", key):
        return key
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip(".-")[-60:]
    return "%s-%s" % (readable or "input", hashlib.sha256(key.encode()).hexdigest()[:10])


async def _predict_all(module, inputs, answers):
    """Predict each input and write a line of results for it."""
    failures = 0
    async with deepaas_server.PrivateServer(module.name, module.plugin) as server:
        stop = deepaas_server.stopping(signal.SIGTERM)
        for each in inputs:
            started = time.monotonic()
            line = {"key": each.key, "ok": True, "file": None, "error": None, "result": None}
            predicting = asyncio.ensure_future(_predict_one(server, each, answers))
            await asyncio.wait([predicting, stop], return_when=asyncio.FIRST_COMPLETED)
            if not predicting.done():
                predicting.cancel()
                return TERMINATED
            try:
                line.update(predicting.result())
            except Exception as error:  # noqa: BLE001 -- whatever one input brings about, the others are predicted
                told = _told(error)
                line.update(ok=False, error=told)
                failures += 1
                note("%s: %s" % (each.key, told))
            append_line(answers.results, dict(line, seconds=round(time.monotonic() - started, 3), digest=each.digest))
            server.clear_uploads()
    if failures:
        note("%d of %d inputs failed" % (failures, len(inputs)))
    return FAILED if failures else 0


def _told(error):
    """Return what is said of a failed input: the text alone of what was foreseen, else the type too."""
    foreseen = isinstance(error, (BadArgumentError, deepaas_server.ServerError, OSError))
    return str(error) if foreseen else "%s: %s" % (type(error).__name__, error)


async def _predict_one(server, one, answers):
    """Predict one input, keep the answer as DEEPaaS gave it, and return what its line says of it."""
    deepaas_arguments.check_required(one.values, answers.arguments)
    request = deepaas_arguments.plan_request(one.values, answers.arguments, answers.accept)
    answer = await server.ask_well("POST", "%s/predict/" % server.name, request)
    if answers.is_asked and not fits(answers.accept, answer.content_type):
        raise deepaas_server.ServerError("asked for %s, the module answered %s" % (answers.accept, answer.content_type))
    name = file_name(one.key) + extension_of(answer.content_type, answer.content)
    is_json = answer.content_type == "application/json"
    value = answer.json() if is_json and len(answer.content) <= _LARGEST_ERROR_BYTES else None
    if body_error(value):
        raise deepaas_server.ServerError("the module answers: %s" % body_error(value))
    write_file(os.path.join(answers.folder, name), answer.content)
    return {"file": name, "result": value if len(answer.content) <= _INLINE_BYTES else None}
