"""What `serve start` decides: which image and models of a training, and which sample, before anything is submitted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deephpc.containers.container import ImageOptions
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from deephpc.serve.module_description import Argument, Method, ModuleDescription
from deephpc.workflows.in_image import Enclosed
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobOptions, JobRequest, load_train_request
from deephpc.workflows.serve import ServeWords, load_serve_request, plan_service
from tests.containers.test_container import a_container
from tests.fakes.samples import NOON, TOKEN, settings_in

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as opened:
        yield opened


@pytest.fixture
def trained(tmp_path: Path, record: Record) -> Callable[..., Job]:
    """Return a function that records a training of a module."""

    def make(target: str = "posenet", state: JobState = JobState.COMPLETED, **image: object) -> Job:
        options = JobOptions(image=ImageOptions.model_validate(image))
        request = load_train_request(target, [], tmp_path, options)
        enclosed = Enclosed(a_container(), request.command) if request.program == "module" else None
        new = NewRun("train-posenet-0001", TOKEN, NOON)
        plan, _ = plan_job(request, settings_in(tmp_path), new, environ={}, enclosed=enclosed)
        job = plan.new_job().model_copy(update={"state": state, "job_id": "1"})
        job.folder.mkdir(parents=True)
        job.files.plan.write_text(plan.render())
        record.add(job)
        return job

    return make


def models_of(job: Job) -> Path:
    folder = job.folder / "output" / "models"
    folder.mkdir(parents=True)
    (folder / "model.npz").touch()
    return folder


def request_of(target: str, record: Record, cwd: Path, **image: object) -> JobRequest:
    options = JobOptions(image=ImageOptions.model_validate(image))
    return load_serve_request(ServeWords(target), cwd, options, record)


def test_a_training_is_served_from_its_very_image_with_what_it_learned(trained, record: Record, tmp_path: Path):
    models = models_of(trained())
    request = request_of("train-posenet-0001", record, tmp_path)
    image = request.options.image
    assert image.reference == f"docker://docker.io/library/python:3@{DIGEST}"
    assert (image.engine, image.models) == ("apptainer", models)
    assert (request.kind, request.target, request.slug) == ("serve", "posenet", "posenet")
    assert request.command[-2:] == ("--expect", "posenet")
    assert request_of("train-pos", record, tmp_path, engine="udocker").options.image.engine == "udocker"


def test_a_training_that_left_no_models_is_not_served(trained, record: Record, tmp_path: Path):
    trained()
    with pytest.raises(InputError, match="there are no models in"):
        request_of("train-posenet-0001", record, tmp_path)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PENDING])
def test_a_training_that_goes_on_is_not_served_yet(trained, record: Record, tmp_path: Path, state: JobState):
    models_of(trained(state=state))
    with pytest.raises(InputError, match="its models are not finished"):
        request_of("train-posenet-0001", record, tmp_path)


def test_a_training_of_ones_own_program_says_nothing_of_how_it_is_served(trained, record: Record, tmp_path: Path):
    (tmp_path / "train.py").touch()
    trained("train.py")
    with pytest.raises(InputError, match="trained your own program"):
        request_of("train-posenet-0001", record, tmp_path)


def described(*arguments: Argument, exists: bool = True) -> ModuleDescription:
    return ModuleDescription(
        served="pose_net", train=Method(), predict=Method(exists=exists, arguments=arguments), error=None
    )


IMAGE = Argument(name="image", type="file", required=True)


def test_the_sample_is_checked_and_its_files_are_copied(tmp_path: Path):
    (tmp_path / "a b.png").touch()
    asked = ServeWords("posenet", samples=("image=a b.png", "top=2"))
    draft = load_serve_request(asked, tmp_path, JobOptions(), None)
    plan = plan_service(draft, asked, described(IMAGE, Argument(name="top", type="int")), tmp_path)
    assert plan.copies == {"samples/0/a b.png": tmp_path / "a b.png"}
    service = plan.request.service
    assert service is not None
    assert (service.sample, service.model) == ((("image", "samples/0/a b.png"), ("top", "2")), "pose_net")


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (("image=nowhere.png",), "there is no file"),
        (("imgae=x",), "no argument --sample imgae"),
        (("top=2",), "needs --sample image"),
        (("image=a.png", "top=two"), "top"),
    ],
)
def test_a_sample_that_cannot_be_one_is_refused(tmp_path: Path, samples: tuple[str, ...], said: str):
    (tmp_path / "a.png").touch()
    asked = ServeWords("posenet", samples=samples)
    draft = load_serve_request(asked, tmp_path, JobOptions(), None)
    with pytest.raises(InputError, match=said):
        plan_service(draft, asked, described(IMAGE, Argument(name="top", type="int")), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (ServeWords(None), "there is nothing to serve"),
        (ServeWords(""), "neither a module's name nor an image"),
        (ServeWords("posenet", samples=("=x",)), "is not NAME=VALUE"),
        (ServeWords("posenet", models="/nowhere"), "there is no such folder"),
        (ServeWords("posenet", port_variable="PORT"), "--port-env is for --command"),
        (ServeWords(None, command="x 'y"), "No closing quotation"),
        (ServeWords(None, command=" "), "--command is empty"),
        (ServeWords(None, command="x $PORT", port_variable="PORT"), "no shell puts the value of .PORT there"),
        (ServeWords(None, command="x ${DEEPHPC_SOCKET}"), "no shell puts the value of .DEEPHPC_SOCKET there"),
        (ServeWords(None, command="x", service="jupyter"), "--command cannot be"),
        (ServeWords(None, command="x\ud800"), "not valid UTF-8"),
        (ServeWords(None, service="command"), "--service command needs --command"),
        (ServeWords(None, service="jupyter", samples=("a=b",)), "--sample is for modules"),
        (ServeWords(None, command="x", models="m"), "--models is for modules"),
        (ServeWords(None, command="x", port_variable="a b"), "--port-env 'a b' is not a variable's name"),
        (ServeWords(None, command="x", port_variable="A;id"), "--port-env 'A;id' is not a variable's name"),
    ],
)
def test_options_that_make_no_server_are_named(tmp_path: Path, words: ServeWords, said: str):
    with pytest.raises(InputError, match=said):
        plan_service(load_serve_request(words, tmp_path, JobOptions(), None), words, None, tmp_path)


def test_a_command_is_split_as_a_shell_would_and_runs_in_the_image_or_here(tmp_path: Path):
    words = ServeWords(None, command="sh -c 'my $PORT'", port_variable="PORT")
    assert load_serve_request(words, tmp_path, JobOptions(), None).command == ("sh", "-c", "my $PORT")
    words = ServeWords(None, command="python 'my app.py' --port 1", port_variable="PORT")
    here = load_serve_request(words, tmp_path, JobOptions(), None)
    assert (here.command, here.program, here.workdir) == (("python", "my app.py", "--port", "1"), "own", tmp_path)
    assert here.service is not None
    assert (here.service.kind, here.service.port_variable) == ("command", "PORT")
    inside = load_serve_request(ServeWords("docker://x/y", command="run it"), tmp_path, JobOptions(), None)
    assert (inside.kind, inside.program, inside.command) == ("serve", "image", ("run", "it"))


def test_jupyter_runs_here_also_in_an_image(tmp_path: Path):
    words = ServeWords("docker://x/y", service="jupyter")
    request = load_serve_request(words, tmp_path, JobOptions(), None)
    assert (request.program, request.workdir, request.options.image.reference) == ("own", tmp_path, "docker://x/y")
    assert load_serve_request(ServeWords(None, service="jupyter"), tmp_path, JobOptions(), None).slug == "jupyter"


def test_of_an_unknown_module_a_value_that_names_a_file_is_one(tmp_path: Path):
    (tmp_path / "a.png").touch()
    asked = ServeWords("posenet", samples=("image=a.png", "name=b.png"))
    plan = plan_service(load_serve_request(asked, tmp_path, JobOptions(), None), asked, None, tmp_path)
    assert list(plan.copies) == ["samples/0/a.png"]


def test_a_module_that_does_not_predict_is_not_served(tmp_path: Path):
    asked = ServeWords("posenet")
    draft = load_serve_request(asked, tmp_path, JobOptions(), None)
    with pytest.raises(InputError, match="cannot predict"):
        plan_service(draft, asked, described(exists=False), tmp_path)
