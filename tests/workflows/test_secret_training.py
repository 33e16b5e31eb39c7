"""What is secret of a training's arguments lies apart from its first command to its last repetition."""

import json
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.state import JobState
from deephpc.render.jobs import render_plan
from deephpc.serve.module_description import Argument, Method, ModuleDescription
from deephpc.serve.secret_arguments import PRIVATE_ARGUMENTS
from deephpc.workflows.in_image import Enclosed
from deephpc.workflows.keep import load_rerun, load_secret_files, load_secrets
from deephpc.workflows.launch import Asked, launch, prepare
from deephpc.workflows.module_use import checked_training
from deephpc.workflows.plan import load_plan
from deephpc.workflows.request import JobOptions, JobRequest, load_train_request
from tests.fakes.samples import NOON, a_container, settings_in
from tests.fakes.schedulers import ScriptedScheduler

MODULE = ModuleDescription(
    served="leaves",
    train=Method(
        exists=True,
        arguments=(
            Argument(name="token", is_secret=True, required=True),
            Argument(name="api_key", is_secret=True),
            Argument(name="pin", type="int", is_secret=True),
            Argument(name="epochs", type="int", default=3),
            Argument(name="note"),
        ),
    ),
)
ODD = "ü ψ \"'\n$(id) \\"
GIVEN = [
    (("--token", "hush-hush", "--epochs", "4"), {"token": "hush-hush"}),
    (
        ("--token=a=b c", "--api-key", "dash-dash", "--pin", "47110815"),
        {"token": "a=b c", "api_key": "dash-dash", "pin": "47110815"},
    ),
    (("--token", ODD, "--api_key=" + ODD[::-1], "--note", "***"), {"token": ODD, "api_key": ODD[::-1]}),
]


class Trainings:
    """Trainings of a module, submitted to a scheduler that takes them."""

    def __init__(self, place: Path, record: Record) -> None:
        self.place, self.record = place, record
        self.settings = settings_in(place)

    def asked(
        self,
        request: JobRequest,
        kept: Mapping[str, JsonValue] | None = None,
        files: Mapping[str, str] | None = None,
        module: ModuleDescription | None = MODULE,
    ) -> Asked:
        enclosed = Enclosed(a_container(is_module=True), request.command)
        checked = checked_training(enclosed, module, self.place, kept=kept)
        environ = {"PATH": "/usr/bin", "HOME": str(self.place), "USER": "me"}
        return Asked(request, {}, environ, checked, files or {})

    def submit(self, asked: Asked) -> Job:
        job, _, _ = launch(asked, self.settings, self.record, ScriptedScheduler(), lambda: NOON)
        return job

    def train(self, *words: str) -> Job:
        return self.submit(self.asked(self.request(words)))

    def again(self, job: Job, module: ModuleDescription | None = MODULE) -> Job:
        """Repeat a run as `jobs rerun` does."""
        request, _ = load_rerun(job)
        return self.submit(self.asked(request, load_secrets(job.files), load_secret_files(job.files), module))

    def request(self, words: Sequence[str]) -> JobRequest:
        return load_train_request("docker://registry.example.org/leaves:1", words, self.place, JobOptions())


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path / "state" / "deephpc.db") as opened:
        yield opened


@pytest.fixture
def trainings(tmp_path: Path, record: Record) -> Trainings:
    return Trainings(tmp_path, record)


def forms(secret: str) -> set[str]:
    """Return how a secret might stand in a file."""
    return {secret, shlex.quote(secret), json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}


def holds(text: str, secrets: Mapping[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]


def check_apart(job: Job, record: Record, secrets: Mapping[str, str]) -> None:
    """Check that a run keeps secrets in the one file that is for them, and has stars elsewhere."""
    kept = job.folder / PRIVATE_ARGUMENTS
    assert json.loads(kept.read_text()) == secrets
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE(kept.parent.stat().st_mode)) == (0o600, 0o700)
    others = [path for path in job.folder.rglob("*") if path.is_file() and path != kept]
    assert [path for path in others if holds(path.read_text(), secrets)] == []
    assert not holds(record.get(job.run_id).model_dump_json(), secrets)
    plan = load_plan(job.files)
    assert plan is not None
    for words in (plan.spec.command, plan.request.command):
        assert {f"--{name}=***" for name in secrets} <= set(words)


@pytest.mark.parametrize(("words", "secrets"), GIVEN)
def test_a_password_lies_in_secrets_alone_and_goes_on_with_each_repetition(
    trainings: Trainings, record: Record, words: tuple[str, ...], secrets: dict[str, str]
) -> None:
    first = trainings.train(*words)
    second = trainings.again(first)
    unasked = trainings.again(second, module=None)
    for job in (first, second, unasked):
        check_apart(job, record, secrets)
    assert len({job.run_id for job in (first, second, unasked)}) == 3
    plans = [load_plan(job.files) for job in (first, second, unasked)]
    assert len({plan.spec.command for plan in plans if plan is not None}) == 1


@pytest.mark.parametrize(("words", "secrets"), GIVEN)
def test_a_dry_run_shows_stars_and_the_script_that_is_sent(
    trainings: Trainings, record: Record, words: tuple[str, ...], secrets: dict[str, str]
) -> None:
    asked = trainings.asked(trainings.request(words))
    ready, _ = prepare(asked, trainings.settings, record, NOON)
    for as_json in (False, True):
        assert not holds(render_plan(ready.plan, ready.script, as_json=as_json), secrets)
    assert trainings.submit(asked).files.script.read_text() == ready.script
    assert "--token=***" in ready.script


def test_a_submission_without_an_answer_is_gone_on_with_and_has_the_password_given_last(
    trainings: Trainings, record: Record
) -> None:
    first = trainings.train("--token", "mistyped")
    unsent = {"state": JobState.SUBMITTING, "job_id": None, "submitter": ""}
    record.change(first.run_id, lambda known: known.model_copy(update=unsent), NOON)
    asked = trainings.asked(trainings.request(("--token", "as meant")))
    ready, resumed = prepare(asked, trainings.settings, record, NOON)
    assert resumed is not None
    assert ready.plan.spec.run_id == first.run_id
    assert json.loads(ready.files[PRIVATE_ARGUMENTS]) == {"token": "as meant"}


@pytest.mark.parametrize("text", [None, "", "[1]", '{"api_key": "x"}'])
def test_a_password_that_is_gone_is_not_taken_for_its_stars(trainings: Trainings, text: str | None) -> None:
    job = trainings.train("--token=hush", "--epochs=4")
    path = job.folder / PRIVATE_ARGUMENTS
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match="password that is not kept any more") as caught:
        trainings.again(job)
    assert caught.value.hint == "submit it anew, with --token=VALUE"


def test_what_was_kept_apart_stays_so_where_the_module_declares_it_no_password_any_more(
    trainings: Trainings, record: Record
) -> None:
    job = trainings.train("--token=hush-hush", "--epochs=4")
    openly = tuple(one.model_copy(update={"is_secret": False}) for one in MODULE.train.arguments)
    changed = MODULE.model_copy(update={"train": Method(exists=True, arguments=openly)})
    check_apart(trainings.again(job, changed), record, {"token": "hush-hush"})


def test_a_training_without_passwords_is_as_it_was(trainings: Trainings) -> None:
    optional = tuple(one.model_copy(update={"required": False}) for one in MODULE.train.arguments)
    module = MODULE.model_copy(update={"train": Method(exists=True, arguments=optional)})
    asked = trainings.asked(trainings.request(("--epochs", "4", "--note=***")), module=module)
    job = trainings.submit(asked)
    plan = load_plan(RunFolder(job.folder))
    assert plan is not None
    assert plan.spec.command[-2:] == ("--epochs=4", "--note=***")
    assert plan.request == asked.request
    assert not (job.folder / "secrets").exists()
