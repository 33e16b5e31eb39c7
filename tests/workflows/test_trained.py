"""Which model of a training answers, where its image had models of its own."""

import json
import os
import shutil
from pathlib import Path

import pytest
from pydantic import JsonValue

from deephpc.containers.container import ImageOptions
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from deephpc.serve.module_description import Argument, Method, ModuleDescription
from deephpc.workflows.in_image import Enclosed
from deephpc.workflows.keep import secret_variables
from deephpc.workflows.launch import Asked, launch
from deephpc.workflows.request import JobOptions, JobRequest, load_module_request, load_train_request
from deephpc.workflows.serve import ServeWords, load_serve_request
from deephpc.workflows.trained import (
    choose_answering,
    find_models,
    models_of,
    surroundings_as_trained,
    tell_opened,
    with_models,
)
from tests.fakes.samples import NOON, a_container, settings_in
from tests.fakes.schedulers import ScriptedScheduler

LEAVES = "docker://reg.org/leaves:1"


def run_of(place: Path, trained: list[str], shipped: list[str], state: str = "COMPLETED") -> Path:
    models = place / "train-leaves-1a2b" / "output" / "models"
    models.mkdir(parents=True)
    for name in (*shipped, *trained):
        (models / name).mkdir()
    if shipped:
        (models.parent.parent / "shipped-models.txt").write_text("\n".join(shipped) + "\n")
    (models.parent.parent / "result.json").write_text(json.dumps({"state": state}))
    return models


def module(*choices: JsonValue) -> ModuleDescription:
    arguments = (Argument(name="top", type="int"), Argument(name="timestamp", choices=choices))
    return ModuleDescription(served="leaves", predict=Method(exists=True, arguments=arguments))


@pytest.mark.parametrize("choices", [("2019", "2026"), ('"2019"', '"2026"'), ("2026",)])
def test_the_trained_one_becomes_the_default_where_the_module_lets_one_choose(
    tmp_path: Path, choices: tuple[str, ...]
) -> None:
    found = choose_answering(run_of(tmp_path, ["2026"], ["2019"]), module(*choices))
    assert found.words == ("--default", f"timestamp={json.dumps(choices[-1])}", "--watch-models")
    assert found.note == "2026 of the training answers (timestamp=2026), not 2019"


def test_where_the_choice_is_the_modules_own_that_is_told(tmp_path: Path) -> None:
    found = choose_answering(run_of(tmp_path, ["best.pt"], ["base", "coco"]), module())
    assert found.words == ("--watch-models",)
    assert "beside best.pt of the training (base, coco); which of them answers is the module's own choice" in found.note


@pytest.mark.parametrize("changes", [(), ("base/weights.pt",), ("base/deep/new.pt", "coco/weights.pt")])
def test_models_of_the_image_that_a_training_changed_or_did_not_are_told(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    models = run_of(tmp_path, [], ["base", "coco"])
    for name in ("base", "coco"):
        (models / name / "weights.pt").write_text("shipped")
        os.utime(models / name / "weights.pt", (1e9, 1e9))
    began = (models.parent.parent / "shipped-models.txt").stat().st_mtime
    for name in changes:
        (models / name).parent.mkdir(exist_ok=True)
        (models / name).write_text("trained")
        os.utime(models / name, (began + 5, began + 5))
    note = choose_answering(models, module()).note
    changed = ", ".join(sorted({name.partition("/")[0] for name in changes}))
    told = f"{changed} of the image, as the training changed it" if changes else "(base, coco), and changed none"
    assert note.endswith(told)


def test_one_model_alone_needs_no_word(tmp_path: Path) -> None:
    assert choose_answering(None, None).note == ""
    assert choose_answering(run_of(tmp_path, ["2026"], []), module("2026")).note == ""


@pytest.mark.parametrize("state", ["TIMEOUT", "FAILED", "CANCELLED"])
def test_a_training_that_did_not_complete_is_served_with_a_word(tmp_path: Path, state: str) -> None:
    found = choose_answering(run_of(tmp_path, ["2026"], [], state), None)
    assert found.note == f"train-leaves-1a2b ended {state}: its models may be unfinished"


def test_a_folder_of_the_users_own_is_no_runs(tmp_path: Path) -> None:
    models = tmp_path / "mine" / "models"
    models.mkdir(parents=True)
    (tmp_path / "result.json").write_text(json.dumps({"state": "FAILED"}))
    assert choose_answering(models, module("2026")).note == ""


def request_with(models: Path | None, cwd: Path) -> JobRequest:
    request = load_module_request("serve", LEAVES, (), cwd, JobOptions())
    return request if models is None else with_models(request, models)


def test_the_variables_of_a_training_go_with_its_models(tmp_path: Path) -> None:
    models = run_of(tmp_path, ["2026"], [])
    secrets = models.parent.parent / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "env.sh").write_text("export MODELS_URI='/m n'\nexport TOKEN='a\"b'\n")
    (secrets / "env.sh").chmod(0o600)
    request, variables, added = surroundings_as_trained(request_with(models, tmp_path), {"TOKEN": "mine", "OWN": "1"})
    assert variables == {"MODELS_URI": "/m n", "TOKEN": "mine", "OWN": "1"}
    assert (added, request.options.variable_names) == (("MODELS_URI",), ("MODELS_URI", "OWN", "TOKEN"))


@pytest.mark.parametrize("mode", [None, 0o640, 0o606])
def test_a_file_that_others_may_have_written_is_nobodys_environment(tmp_path: Path, mode: int | None) -> None:
    models = run_of(tmp_path, ["2026"], [])
    if mode is not None:
        (models.parent.parent / "secrets").mkdir()
        file = models.parent.parent / "secrets" / "env.sh"
        file.write_text("export LD_PRELOAD=/tmp/evil.so\n")
        file.chmod(mode)
    for found in (models, None):
        request = request_with(found, tmp_path)
        assert surroundings_as_trained(request, {"OWN": "1"}) == (request, {"OWN": "1"}, ())


PLACES = {"MODELS_PATH": "/storage/m n", "APP_INPUT_OUTPUT_BASE_DIR": "/srv/app's", "DATA_PATH": "/data/µ"}


class Runs:
    """Runs of a module, submitted to a scheduler that takes them."""

    def __init__(self, place: Path, record: Record) -> None:
        self.place, self.record = place, record

    def submit(self, request: JobRequest, variables: dict[str, str]) -> Job:
        container = a_container(is_module=True, models=request.options.image.models)
        environ = {"PATH": "/usr/bin", "HOME": str(self.place), "USER": "me"}
        asked = Asked(request, variables, environ, Enclosed(container, request.command))
        job, _, _ = launch(asked, settings_in(self.place), self.record, ScriptedScheduler(), lambda: NOON)
        return job

    def train(self, variables: dict[str, str]) -> Job:
        options = JobOptions(variable_names=tuple(variables))
        job = self.submit(load_train_request(LEAVES, [], self.place, options), variables)
        (models_of(job) / "2026").mkdir(parents=True)
        done = {"state": JobState.COMPLETED}
        return self.record.change(job.run_id, lambda known: known.model_copy(update=done), NOON)

    def use(self, kind: str, trained: Job) -> JobRequest:
        """Return what `serve start RUN` asks for, and `predict TARGET --models RUN`."""
        if kind == "serve":
            return load_serve_request(ServeWords(trained.run_id), self.place, JobOptions(), self.record)
        request = load_module_request("predict", LEAVES, ("predict",), self.place, JobOptions())
        return with_models(request, find_models(trained.run_id, self.record, self.place))


@pytest.mark.parametrize("own", [{}, {"MODELS_PATH": "/of my own"}, {"DATA_PATH": "", "TOP": "3"}])
@pytest.mark.parametrize("kind", ["serve", "predict"])
def test_where_a_training_was_told_that_its_places_are_is_told_to_what_uses_it(
    tmp_path: Path, kind: str, own: dict[str, str]
) -> None:
    with Record(tmp_path / "state" / "deephpc.db") as record:
        runs = Runs(tmp_path, record)
        trained = runs.train(PLACES)
        request, variables, added = surroundings_as_trained(runs.use(kind, trained), own)
        job = runs.submit(request, variables)
    assert secret_variables(job.files) == {**PLACES, **own}
    assert set(added) == PLACES.keys() - own.keys()
    facts = (job.files.container / "facts.sh").read_text()
    [seen_inside] = [line for line in facts.splitlines() if line.startswith("variables=")]
    assert all(name in seen_inside for name in {**PLACES, **own})
    assert f"{models_of(trained)}" in facts


@pytest.mark.parametrize(
    ("opened", "told"),
    [
        (["2026/best.pt"], "2026/best.pt of train-"),
        (["2026/best.pt", "base/weights.pt"], "beside base/weights.pt of the image"),
        (["base/weights.pt"], "base/weights.pt alone, which the image had before train-"),
        (["coco/weights.pt"], "coco/weights.pt of train-"),  # the training went on with that one
        ([f"2026/{number}.bin" for number in range(9)], "2026/3.bin, … of train-"),
        ([], "was opened for its answers: they may be those of another model"),
    ],
)
@pytest.mark.parametrize("tasks", [(None,), (0, 1)])
def test_which_model_answered_is_told_by_what_was_opened(
    tmp_path: Path, tasks: tuple[int | None, ...], opened: list[str], told: str
) -> None:
    with Record(tmp_path / "state" / "deephpc.db") as record:
        runs = Runs(tmp_path, record)
        trained = runs.train({})
        for name in ("base", "coco"):
            (models_of(trained) / name).mkdir()
            (models_of(trained) / name / "weights.pt").touch()
        for name in opened:
            (models_of(trained) / name).touch()
        os.utime(models_of(trained) / "base" / "weights.pt", (1e9, 1e9))
        trained.files.task(None).shipped_models.write_text("base\ncoco\n")
        os.utime(trained.files.task(None).shipped_models, (2e9, 2e9))
        os.utime(models_of(trained) / "coco" / "weights.pt", (2e9 + 5, 2e9 + 5))
        job = runs.submit(runs.use("serve", trained), {})
    assert tell_opened(job.files) == "", "nothing was noted"
    for place, task in enumerate(tasks):
        file = job.files.task(task).opened_models
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name}\n" for name in opened[place :: len(tasks)]))
    assert told in tell_opened(job.files)


def test_what_was_opened_of_a_folder_of_the_users_own_is_told(tmp_path: Path) -> None:
    models = tmp_path / "mine"
    models.mkdir()
    (models / "best.pt").touch()
    with Record(tmp_path / "state" / "deephpc.db") as record:
        job = Runs(tmp_path, record).submit(request_with(models, tmp_path), {})
    job.files.task(None).opened_models.write_text("best.pt\n")
    assert tell_opened(job.files) == "opened for its answers: best.pt"


def test_what_lies_over_the_models_is_not_taken_for_them(tmp_path: Path) -> None:
    with Record(tmp_path / "state" / "deephpc.db") as record:
        runs = Runs(tmp_path, record)
        trained = runs.train({})
        (models_of(trained) / "2026" / "best.pt").touch()
        trained.files.task(None).shipped_models.write_text(".gitignore\n.keep\n")
        job = runs.submit(runs.use("serve", trained), {})
    assert choose_answering(models_of(trained), module()).note == "", "hidden files are no models"
    over = f"not in {models_of(trained)}: a bind of yours may lie over it"
    for opened, told in {
        "2026/best.pt\n": f"2026/best.pt of {trained.run_id}",
        "simple/finger.pb\nsimple/model.pb\n": f"simple/finger.pb, simple/model.pb, {over}",
        "2026/best.pt\nother.h5\n": f"answers: other.h5, {over}",
    }.items():
        job.files.task(None).opened_models.write_text(opened)
        assert told in tell_opened(job.files)
    job.files.task(None).opened_models.write_bytes(b"2026/caf\xe9.pt\n2026/two?lines.pt\n")
    assert f"2026/two?lines.pt of {trained.run_id}" in tell_opened(job.files)
    shutil.rmtree(models_of(trained))
    assert tell_opened(job.files).endswith(f"{models_of(trained)} is not there any more")


@pytest.mark.parametrize(
    ("then", "own"), [(["/a:/srv/x/models"], ()), (["/a:/srv/a", "/b:/srv/b"], ("/b:/srv/b",)), ([], ("/c",))]
)
@pytest.mark.parametrize("kind", ["serve", "predict"])
def test_the_binds_of_a_training_go_with_its_models(
    tmp_path: Path, kind: str, then: list[str], own: tuple[str, ...]
) -> None:
    with Record(tmp_path / "state" / "deephpc.db") as record:
        runs = Runs(tmp_path, record)
        options = JobOptions(image=ImageOptions(binds=tuple(then)))
        job = runs.submit(load_train_request(LEAVES, [], tmp_path, options), {})
        (models_of(job) / "2026").mkdir(parents=True)
        done = {"state": JobState.COMPLETED}
        trained = record.change(job.run_id, lambda known: known.model_copy(update=done), NOON)
        request = runs.use(kind, trained)
    image = request.options.image.model_copy(update={"binds": own})
    request = request.model_copy(update={"options": request.options.model_copy(update={"image": image})})
    completed, _, added = surroundings_as_trained(request, {})
    assert completed.options.image.binds == (*(bind for bind in then if bind not in own), *own)
    assert added == tuple(f"--bind {bind}" for bind in then if bind not in own)


@pytest.mark.parametrize("place", ["/nowhere/models", "./none", "models/none"])
def test_a_path_is_told_as_no_folder_and_not_as_no_run(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="there is no such folder"), Record(tmp_path / "s.db") as record:
        find_models(place, record, tmp_path)
