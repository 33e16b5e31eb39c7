"""What an image is asked about its module, with an engine that answers as the program inside would."""

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deephpc.containers.container import Container
from deephpc.errors import EngineError, InputError
from deephpc.serve.module_description import Argument, Method, ModuleDescription
from deephpc.workflows.image import ImagePlaces
from deephpc.workflows.image_upkeep import open_store
from deephpc.workflows.in_image import Enclosed, ImageDesk
from deephpc.workflows.module_use import _models, describe_module, with_files
from tests.fakes.samples import settings_in

IMAGE = "docker://docker.io/library/python:3"


def ask(place: Path, told: list[str], *binds: str, **error: str | None) -> None:
    """Ask an image whose `describe` fails so."""
    program = place / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/bash
while [ $# -gt 1 ]; do [ "$1" != --output ] || cp "{place}/said.json" "$2"; shift; done
"""
    )
    program.chmod(0o755)
    (place / "said.json").write_text(json.dumps({"schema": "deephpc.module/2", "error": error}))
    (place / "image.sif").touch()
    settings = settings_in(place)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    desk = ImageDesk(
        settings,
        ImagePlaces(open_store(settings.cache_dir), environ, place),
        lambda _: None,
        lambda: datetime.now(timezone.utc),
        told.append,
    )
    assert describe_module(Enclosed(container_in(place, settings.cache_dir, *binds), ()), desk) is None


def container_in(place: Path, cache_dir: Path | None = None, *binds: str) -> Container:
    return Container(
        engine="apptainer",
        engine_command="apptainer",
        reason="",
        image=IMAGE,
        digest="sha256:" + "a" * 64,
        prepared=place / "image.sif",
        layout_dir=None,
        cache_dir=cache_dir or place,
        workdir="/",
        is_module=True,
        binds=binds,
    )


@pytest.mark.parametrize("kind", ["no-deepaas", "no-module"])
def test_an_image_without_a_module_is_refused_at_once(tmp_path: Path, kind: str):
    with pytest.raises(EngineError, match=f"{IMAGE} has no DEEPaaS module: nothing there") as caught:
        ask(tmp_path, [], kind=kind, message="nothing there")
    assert caught.value.hint == f"`deephpc run {IMAGE} -- COMMAND` runs anything else in it"


@pytest.mark.parametrize("error", [{"message": "no libcuda"}, {"message": "x", "kind": "", "traceback": "T"}])
def test_a_module_that_cannot_be_imported_here_may_work_on_a_node(tmp_path: Path, error: dict[str, str | None]):
    told: list[str] = []
    ask(tmp_path, told, **error)
    assert told[-1] == f"note: it cannot be imported on this machine: {error['message']}"


def test_what_is_bound_may_bring_a_module(tmp_path: Path):
    told: list[str] = []
    ask(tmp_path, told, "/venv:/venv", kind="no-deepaas", message="nothing there")
    assert "cannot be imported" in told[-1]


@pytest.mark.parametrize("kind", ["several", "unknown-model"])
def test_an_image_with_several_modules_asks_which_before_a_job_is_spent(tmp_path: Path, kind: str):
    with pytest.raises(InputError, match="leaves, trees") as caught:
        ask(tmp_path, [], kind=kind, message="there are several modules: leaves, trees")
    assert caught.value.hint == "choose one: --model NAME"


def test_a_folder_of_models_is_known_by_what_lies_in_it(tmp_path: Path):
    before = _models(tmp_path)
    assert _models(None) == []
    assert _models(tmp_path) == before
    (tmp_path / "2026-11-30").mkdir()
    assert _models(tmp_path) != before


def test_a_file_that_an_argument_names_must_be_there(tmp_path: Path):
    declared = Method(exists=True, arguments=(Argument(name="weights", type="file"),))
    description = ModuleDescription(served="leaves", train=declared)
    missing = Enclosed(container_in(tmp_path), ("train", "--", f"--weights={tmp_path}/w.h5"))
    with pytest.raises(InputError, match="there is no file"):
        with_files(missing, description)
    (tmp_path / "w.h5").touch()
    found = with_files(missing, description).container
    assert found is not None
    assert found.binds == (f"{tmp_path}/w.h5:{tmp_path}/w.h5:ro",)
    assert with_files(missing, None) is missing
