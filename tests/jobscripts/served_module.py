"""A small module for a real DEEPaaS: it warms up, predicts, fails and dies as it is told."""

from pathlib import Path

MODULE = """
import os
import tempfile
import time

from webargs import fields

_STATE = {}


def get_metadata():
    return {"name": "demo", "uploads": len(os.listdir(_uploads())) if _uploads() else None}


def _uploads():
    return _STATE.get("uploads")


def warm():
    if os.environ.get("DEMO_WARM") == "die":
        os.kill(os.getpid(), 9)
    time.sleep(0.5)
    _STATE["warm"] = True


def get_predict_args():
    return {
        "image": fields.Field(required=True, metadata={"type": "file", "location": "form"}),
        "what": fields.Str(load_default="size"),
    }


def get_train_args():
    return {}


def train():
    return {}


def predict(**arguments):
    path = arguments["image"].filename
    if arguments["what"] == "fail":
        raise ValueError("no weights in the module")
    if arguments["what"] == "die":
        os.kill(os.getpid(), 9)
    is_first = "loaded" not in _STATE
    _STATE["loaded"] = True
    copies = len(os.listdir(os.path.dirname(path)))
    return {"size": os.path.getsize(path), "warm": "warm" in _STATE, "first": is_first, "copies": copies}
"""


def write_module(folder: Path, text: str = MODULE, name: str = "demo_module") -> dict[str, str]:
    """Write a module with its entry point, and return the environment in which DEEPaaS finds it."""
    (folder / f"{name}.py").write_text(text)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[deepaas.v2.model]\n{name} = {name}\n")
    return {"PYTHONPATH": str(folder), "TMPDIR": str(folder)}
