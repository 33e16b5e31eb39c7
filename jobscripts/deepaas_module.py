"""Describe, train and use a DEEPaaS module in a batch job, whatever its image makes of `deepaas-run`.

    deepaas_module.py describe [--model NAME] [--expect NAME] [--output FILE]
    deepaas_module.py train [--model NAME] [--expect NAME] [--output DIR] -- [--NAME VALUE]...
    deepaas_module.py predict [--model NAME] [--expect NAME] [--output DIR] --inputs FILE [--results F] [--accept TYPE]

Runs inside the image: Python 3.6 or later and the image's own DEEPaaS; the other `deepaas_*.py` lie beside it.
Exit codes: 0 done; 1 the module failed; 2 its arguments are wrong; 3 there is no module that can be used; 143 SIGTERM.
"""

import argparse
import json
import os
import signal
import sys

import deepaas_server
from deepaas_arguments import BadArgumentError, describe_arguments
from deepaas_folders import folders_of
from deepaas_loading import (
    NoModuleError,
    check_arguments,
    entry_points,
    fields_of,
    find_deepaas,
    has_method,
    load_module,
    metadata_of,
    with_defaults,
)
from deepaas_opened import watch_models
from deepaas_output import note, stdout_on_stderr, write_file
from deepaas_secrets import load_secrets
from deepaas_training import FAILED, TERMINATED, Terminated

SCHEMA = "deephpc.module/3"
BAD_ARGUMENTS, NO_MODULE = 2, 3


def main(argv=None):
    """Run one command and return the exit code."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("RCLONE_CONTIMEOUT", "1s")  # modules that call rclone when imported hang for minutes offline
    os.environ.setdefault("RCLONE_RETRIES", "1")
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGUSR1, _on_sigusr1)
    try:
        return {"describe": _describe, "train": _train, "predict": _predict}[options.command](options)
    except NoModuleError as error:
        note(error)
        return NO_MODULE
    except BadArgumentError as error:
        note(error)
        return BAD_ARGUMENTS
    except Terminated:
        return TERMINATED


def describe(model, expect):
    """Return what module the image has and which arguments it takes, and the error instead when it cannot be used."""
    python = ".".join(map(str, sys.version_info[:3]))
    description = {"schema": SCHEMA, "deepaas": "", "python": python, "models": [], "served": None, "error": None}
    try:
        find_deepaas()
        with stdout_on_stderr():  # what the module prints is no part of the answer
            description.update(deepaas=_deepaas_version(), models=sorted(entry_points()))
            description.update(_describe_module(load_module(model, expect)))
    except NoModuleError as error:
        description["error"] = {"kind": error.kind, "message": str(error), "traceback": error.traceback}
    return description


def _describe_module(module):
    description = {"served": module.name, "metadata": metadata_of(module), "folders": folders_of(module.plugin)}
    for method in ("train", "predict"):
        arguments = describe_arguments(fields_of(module, method))
        description[method] = {"exists": has_method(module, method), "arguments": arguments}
    return description


def _deepaas_version():
    import deepaas

    return str(getattr(deepaas, "extract_version", lambda: getattr(deepaas, "__version__", ""))())


def _describe(options):
    description = describe(options.model, options.expect)
    text = json.dumps(description, indent=1) + "\n"
    if options.output:
        write_file(options.output, text.encode())
    else:
        sys.stdout.write(text)
    if description["error"]:
        raise NoModuleError(description["error"]["message"])
    return 0


def _train(options):
    import deepaas_training

    deepaas_training.end_children_at_exit()
    find_deepaas()
    module = load_module(options.model, options.expect)
    secrets, result = load_secrets(_run_folder()), os.path.join(_output_folder(options), "train.json")
    try:
        return deepaas_training.train(module, options.arguments, secrets, result)
    finally:
        deepaas_training.end_workers()


def _predict(options):
    import deepaas_prediction

    find_deepaas()
    opened = watch_models() if options.watch_models else None
    module = load_module(options.model, options.expect)
    check_arguments(module)
    with_defaults(module, options.default)
    folder = _output_folder(options)
    try:
        return deepaas_prediction.predict(module, _inputs_file(options), folder, options.results, options.accept)
    except deepaas_server.ServerError as error:
        note("the module %s cannot be served: %s" % (module.name, error))
        return FAILED
    finally:
        if opened:
            opened.write()


def _output_folder(options):
    return options.output or os.environ.get("DEEPHPC_OUTPUT_DIR") or "."


def _run_folder():
    """Return the folder of the run; empty where this is none."""
    return os.path.dirname(os.environ.get("DEEPHPC_DATA_DIR", ""))


def _inputs_file(options):
    """Return the file of inputs: that of this task of the run, when none is named."""
    run, task = _run_folder(), os.environ.get("DEEPHPC_TASK_ID")
    if not options.inputs and not (run and task):
        raise BadArgumentError("--inputs is missing, and this is no task of a run")
    return options.inputs or os.path.join(run, "inputs", task + ".jsonl")


def _on_sigterm(*_):
    raise Terminated(TERMINATED)


def _on_sigusr1(*_):
    note("SIGUSR1: the module does not handle it")


def _parse(argv):
    parser = argparse.ArgumentParser(description="Describe, train and use a DEEPaaS module in a batch job.")
    commands = parser.add_subparsers(dest="command")
    commands.required = True
    for name in ("describe", "train", "predict"):
        command = commands.add_parser(name)
        command.add_argument("--model", help="the entry point's name")
        command.add_argument("--expect", help="what the catalogue calls the module; decides among several")
        command.add_argument("--output", help="file (describe) or folder of the results; $DEEPHPC_OUTPUT_DIR or here")
        if name == "train":
            command.add_argument("arguments", nargs="*", metavar="-- ARGS", help="the module's own arguments")
        if name == "predict":
            command.add_argument("--inputs", help="JSON lines: key, and args by name; this task's otherwise")
            command.add_argument("--results", help="file with a line for each input; DIR/results.jsonl by default")
            command.add_argument("--accept", help="content type of the answers")
            command.add_argument(
                "--default", action="append", metavar="NAME=JSON", help="another default of an argument"
            )
            command.add_argument(
                "--watch-models", action="store_true", help="note which of the run's models are opened"
            )
    return parser.parse_args(argv)


if __name__ == "__main__":
    deepaas_server.leave(main())
