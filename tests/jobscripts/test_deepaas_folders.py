"""Where a module keeps its models and data, as its own configuration says when it is asked."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from deepaas_folders import folders_of

Install = Callable[..., types.ModuleType]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Puts modules among those that are imported; returns the last one."""

    def put(**modules: str) -> types.ModuleType:
        for name, source in modules.items():
            module = types.ModuleType(name.replace("__", "."))
            module.__file__ = f"{tmp_path}/{name}.py"
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(source.replace("HERE", str(tmp_path)), vars(module))
        return module

    return put


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("leaves__config", "import pathlib; MODELS_PATH = pathlib.Path('HERE/weights')", {"models": ["weights"]}),
        (
            "leaves__config",
            "app_models = 'HERE/weights/'; app_data = 'HERE/my data'",
            {"models": ["weights"], "data": ["my data"]},
        ),
        ("leaves__configs", "MODEL_DIR = 'HERE/x/../weights'", {"models": ["weights"]}),
        ("leaves__paths", "def get_models_dir(): return 'HERE/weights'", {"models": ["weights"]}),
        ("leaves__paths", "def get_images_dir(): return 'HERE/my data'", {"data": ["my data"]}),
        ("leaves__core__config", "DATA_DIR = DATA_PATH = 'HERE/my data'", {"data": ["my data"]}),
        ("leaves__config", "MODELS_PATH = 'HERE/weights/file'; DATA_PATH = 'HERE/none'", {}),
        ("leaves__config", "MODELS_PATH = 'weights'; DATA_PATH = ''; MODELS_DIR = None; DATA_DIR = 5", {}),
        ("leaves__config", "MODELS_PATH = '/'; MODELS_DIR = '/etc'; DATA_PATH = '/usr/lib'; DATA_DIR = '//tmp'", {}),
        ("leaves__config", "import os; MODELS_PATH = os.path.expanduser('~'); DATA_DIR = 'HERE/code'", {}),
        ("leaves__config", "MODELS_PATH = 'HERE/a:b'; DATA_PATH = b'HERE/weights'", {}),
        ("leaves__paths", "def get_models_dir(model): return 'HERE/weights'", {}),
        ("leaves__paths", "def get_models_dir(*, model): return 'HERE/weights'", {}),
        ("leaves__paths", "def get_models_dir(): raise SystemError('no')", {}),
        ("leaves__other", "MODELS_PATH = 'HERE/weights'", {}),
        ("trees__config", "MODELS_PATH = 'HERE/weights'", {}),
    ],
)
def test_folders_are_found_where_a_configuration_names_them(
    install: Install, tmp_path: Path, name: str, source: str, found: dict[str, list[str]]
) -> None:
    for folder in ("weights", "my data", "x", "code", "a:b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "weights/file").touch()
    (tmp_path / "code/__init__.py").touch()
    plugin = install(leaves="", **{name: source}, leaves__api="import json")
    expected = {role: [f"{tmp_path}/{folder}" for folder in found.get(role, ())] for role in ("data", "models")}
    assert folders_of(plugin) == expected


def test_the_package_beside_the_interface_is_asked_too(install: Install, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    install(leaves="", leaves__config="MODELS_PATH = 'HERE/weights'")
    plugin = install(api="import leaves as module, json, pytest")
    assert folders_of(plugin)["models"] == [f"{tmp_path}/weights"]


def test_a_module_that_is_an_object_is_asked_through_what_it_comes_from(install: Install, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    source = install(leaves__config="MODELS_DIR = 'HERE/weights'", leaves__api="class Model: pass\nmodel = Model()")
    for plugin in (source.model, source.Model):
        assert folders_of(plugin) == {"data": [], "models": [f"{tmp_path}/weights"]}
