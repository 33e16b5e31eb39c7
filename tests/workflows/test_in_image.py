"""Which runs need an image, what starts inside, and what a dry run foresees."""

from pathlib import Path

import pytest

from deephpc.containers.container import ImageOptions
from deephpc.errors import InputError
from deephpc.workflows.conversion import copy_scripts, is_here
from deephpc.workflows.in_image import program_words, runs_in_image
from deephpc.workflows.request import JobOptions, JobRequest, load_run_request, load_train_request
from tests.containers.trees import file, store_image


def options(**image: object) -> JobOptions:
    return JobOptions(image=ImageOptions.model_validate(image))


def image_request(*command: str, **image: object) -> JobRequest:
    return load_run_request(command, Path("/here"), options(**image), "docker://python")


def test_an_image_or_a_module_as_target_runs_in_it(tmp_path: Path):
    assert runs_in_image(image_request())
    assert runs_in_image(load_train_request("posenet", [], tmp_path, options()))
    assert runs_in_image(load_run_request(["true"], tmp_path, options(reference="docker://python")))
    assert not runs_in_image(load_run_request(["true"], tmp_path, options()))


def test_a_module_may_run_natively_and_an_image_may_not(tmp_path: Path):
    assert not runs_in_image(load_train_request("posenet", [], tmp_path, options(engine="native")))
    with pytest.raises(InputError, match="native runs without an image"):
        runs_in_image(image_request(engine="native"))
    with pytest.raises(InputError, match="native runs without an image"):
        runs_in_image(load_run_request(["true"], tmp_path, options(engine="native", reference="docker://python")))


def test_an_engine_without_an_image_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="--engine apptainer needs an image"):
        runs_in_image(load_run_request(["true"], tmp_path, options(engine="apptainer")))


def test_what_starts_follows_dockers_rules(tmp_path: Path):
    stored = store_image(tmp_path, [file("a")])
    process = stored.config.process.model_copy(update={"entrypoint": ("/entry", "-x"), "cmd": ("serve", "--all")})
    config = stored.config.model_copy(update={"process": process})
    image = type(stored)(**{name: getattr(stored, name) for name in stored.__slots__} | {"config": config})
    assert program_words(image_request(), image) == ("/entry", "-x", "serve", "--all")
    assert program_words(image_request("ls", "-l"), image) == ("/entry", "-x", "ls", "-l")
    assert program_words(load_run_request(["ls"], tmp_path, options(reference="docker://x")), image) == ("ls",)


def test_an_image_that_says_nothing_needs_a_command(tmp_path: Path):
    stored = store_image(tmp_path, [file("a")])
    with pytest.raises(InputError, match="does not say what it starts"):
        program_words(image_request(), stored)


def test_shipped_scripts_are_copied_for_their_owner_alone(tmp_path: Path):
    copy_scripts(("inside.sh", "deepaas_*.py"), tmp_path / "container")
    copied = {path.name for path in (tmp_path / "container").iterdir()}
    assert {"inside.sh", "deepaas_module.py", "deepaas_server.py"} <= copied
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "container").iterdir()} == {0o600}


def test_a_program_is_looked_for_as_a_shell_does(tmp_path: Path):
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    assert not is_here("apptainer", {"PATH": str(tmp_path)})
    program.chmod(0o755)
    assert is_here("apptainer", {"PATH": f"/nowhere:{tmp_path}"})
    assert is_here(str(program), {})
    assert not is_here("/nowhere/apptainer", {"PATH": str(tmp_path)})
