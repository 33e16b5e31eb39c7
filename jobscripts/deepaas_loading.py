"""Finds the DEEPaaS module of an image and imports it, so that one which fails is told from DEEPaaS's test model.

Runs inside the image: Python 3.6 or later, standard library only; DEEPaaS itself is not imported here.
"""

import importlib.util
import json
import os
import shutil
import sys
import traceback
from collections import namedtuple
from collections.abc import Mapping

from deepaas_answers import told_error
from deepaas_arguments import json_safe, sent_as
from deepaas_output import note

GROUP = "deepaas.v2.model"
STAND_IN = "deepaas-test"
"""What DEEPaaS serves in place of a module that fails to import."""
NO_DEEPAAS, NO_MODULE, SEVERAL, UNKNOWN = "no-deepaas", "no-module", "several", "unknown-model"

Module = namedtuple("Module", "name plugin")


class NoModuleError(Exception):
    """The image has no module that can be used.

    `traceback` is the failed import's, if it was one; `kind` is one of the words above where no machine can mend it.
    """

    def __init__(self, text, traceback=None, kind=""):
        super().__init__(text)
        self.traceback, self.kind = traceback, kind


def find_deepaas():
    """Go on in the Python that has DEEPaaS, as `deepaas-run` names it, when this one has not."""
    if importlib.util.find_spec("deepaas"):
        return
    for program in ("deepaas-run", "deepaas-cli"):
        python = interpreter_of(shutil.which(program) or "")
        if python and os.environ.get("DEEPHPC_MODULE_PYTHON") != python:
            os.environ["DEEPHPC_MODULE_PYTHON"] = python  # not twice
            sys.stdout.flush()
            os.execv(python, [python, *sys.argv])
    raise NoModuleError(
        "%s has no DEEPaaS, and there is no deepaas-run on PATH that names another Python" % sys.executable,
        kind=NO_DEEPAAS,
    )


def interpreter_of(script):
    """Return the interpreter in a script's first line, or in the `exec` pip writes where it would be too long."""
    try:
        with open(script, "rb") as file:
            lines = os.fsdecode(file.read(4096)).splitlines()
    except OSError:
        return None
    if len(lines) > 1 and lines[1].startswith("'''exec' "):
        return lines[1].split()[1].strip('"')
    words = lines[0][2:].split() if lines and lines[0].startswith("#!") else []
    return shutil.which(words[1]) if words[1:] and words[0].endswith("/env") else (words or [None])[0]


def load_module(model, expect):
    """Return the module to use: `model`, or what the image names, or the one like `expect`, or the only one.

    Raises
    ------
    NoModuleError
        When there is none, when several are left, and when it fails to import: DEEPaaS would serve its test model then.
    """
    points = entry_points()
    asked = model or os.environ.get("DEEPAAS_V2_MODEL")
    like = [name for name in points if expect and _plain(name) == _plain(expect)]
    left = [asked] if asked else like[:1] or list(points)
    if not points or left == [STAND_IN]:
        kind = NO_MODULE if set(points) <= {STAND_IN} else ""
        raise NoModuleError("no module is installed for DEEPaaS (entry points of the group %s)" % GROUP, kind=kind)
    if len(left) > 1:
        told = "there are several modules, say which with --model: %s" % ", ".join(sorted(points))
        raise NoModuleError(told, kind=SEVERAL)
    name = left[0]
    if name not in points:
        raise NoModuleError("there is no module %s, only %s" % (name, ", ".join(sorted(points))), kind=UNKNOWN)
    os.environ["DEEPAAS_V2_MODEL"] = name
    try:
        return Module(name, points[name].load())
    except Exception as error:
        text = traceback.format_exc()
        sys.stderr.write(text)
        told = "the module %s cannot be imported: %s: %s" % (name, type(error).__name__, error)
        raise NoModuleError(told, text) from error


def entry_points():
    """Return the modules' entry points by name, the first of each name."""
    try:
        from importlib.metadata import entry_points as find
    except ImportError:  # before Python 3.8
        try:
            from importlib_metadata import entry_points as find
        except ImportError:
            import pkg_resources

            return {point.name: point for point in pkg_resources.iter_entry_points(GROUP)}
    everything = find()
    found = everything.select(group=GROUP) if hasattr(everything, "select") else everything.get(GROUP, ())
    return {point.name: point for point in reversed(list(found))}


def check_arguments(module):
    """Ask for the arguments of both methods, as DEEPaaS does when it starts: its own failure would name nobody.

    Raises
    ------
    NoModuleError
        As `fields_of` does.
    """
    for method in ("train", "predict"):
        fields_of(module, method)


def fields_of(module, method):
    """Return a method's fields by name; none when the module does not declare any.

    Raises
    ------
    NoModuleError
        When the module fails there, or returns something else; its own part of the traceback goes to stderr.
    """
    asked = "get_%s_args" % method
    function = getattr(module.plugin, asked, None)
    try:
        found = function() if callable(function) else {}
    except NotImplementedError:
        return {}
    except AttributeError as error:  # DEEPaaS takes that for the same (deepaas/model/v2/wrapper.py, 2.6.0)
        note("%s of %s fails, so that it takes no arguments: %s" % (asked, module.name, told_error(error)))
        return {}
    except Exception as error:
        text = "".join(traceback.format_exception(type(error), error, _of_the_module(error.__traceback__)))
        sys.stderr.write(text)
        told = "the module %s fails in its %s: %s" % (module.name, asked, told_error(error))
        raise NoModuleError(told, text) from error
    if not isinstance(found, (Mapping, type(None))):
        told = "the module %s is wrong: its %s returns a %s" % (module.name, asked, type(found).__name__)
        raise NoModuleError("%s, not a dict of arguments" % told)
    return dict(found or {})


def with_defaults(module, words):
    """Have the module's predictions use other defaults: `NAME=JSON` each, such as which of several models answers."""
    defaults = dict(word.split("=", 1) for word in words or ())
    function = getattr(module.plugin, "get_predict_args", None)
    if not defaults or not callable(function):
        return

    def changed():
        fields = function()
        for name, field in fields.items():
            if sent_as(name, field) in defaults:
                field.load_default = field.missing = json.loads(defaults[sent_as(name, field)])
                field.required = False
        return fields

    module.plugin.get_predict_args = changed


def has_method(module, method):
    """Return whether the module can be trained, or predicts."""
    return callable(getattr(module.plugin, method, None))


def metadata_of(module):
    """Return what the module says of itself; a failure there stops nobody."""
    try:
        return json_safe(module.plugin.get_metadata())
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's module raises
        note("the metadata of %s cannot be read: %s" % (module.name, error))
        return {}


def _of_the_module(trace):
    """Return a traceback from the module's first line on."""
    while trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _plain(name):
    return name.lower().replace("-", "_")
