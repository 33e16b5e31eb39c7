"""What the user asked for: taken exactly, or refused with the reason."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.container import ImageOptions
from deephpc.errors import InputError
from deephpc.workflows.request import (
    JobOptions,
    JobRequest,
    checked_name,
    environment_variables,
    find_active_venv,
    load_run_request,
    load_train_request,
    load_variables,
)

NO_OPTIONS = JobOptions()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my digits"
    folder.mkdir()
    (folder / "train.py").write_text("print()\n")
    (folder / "notes.txt").write_text("")
    return folder


def test_a_python_file_runs_where_the_command_was_given(project: Path, tmp_path: Path):
    request = load_train_request("my digits/train.py", ["--epochs", "4"], tmp_path, NO_OPTIONS)
    assert request.command == ("python3", str(project / "train.py"), "--epochs", "4")
    assert (request.workdir, request.slug) == (tmp_path, "my-digits")


def test_a_project_folder_runs_its_entry_point_inside_it(project: Path, tmp_path: Path):
    request = load_train_request("my digits", [], tmp_path, NO_OPTIONS)
    assert request.command == ("python3", str(project / "train.py"))
    assert request.workdir == project


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my digits/notes.txt", "is not a Python file"),
        ("", "the target is empty"),
        ("./nothing", "neither a Python file nor a project folder"),
        (".", "has none of train.py"),
    ],
)
def test_a_target_with_nothing_to_run_is_refused(project: Path, tmp_path: Path, target: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_train_request(target, [], tmp_path, NO_OPTIONS)
    assert caught.value.hint


def test_a_run_needs_a_command(tmp_path: Path):
    for command in ((), ("",)):
        with pytest.raises(InputError, match="no command was given"):
            load_run_request(command, tmp_path, NO_OPTIONS)


@pytest.mark.parametrize("target", ["posenet", "docker://ctl:5000/a/b:1@sha256:" + "0" * 64, "oci:layout", "x.sif"])
def test_a_target_that_is_no_file_here_is_an_image_or_a_module(tmp_path: Path, target: str):
    request = load_train_request(target, ["--epochs", "4"], tmp_path, NO_OPTIONS)
    assert request.program == "module"
    which = ("--expect", "posenet") if target == "posenet" else ()
    assert request.command == ("python3", "/deephpc/bin/deepaas_module.py", "train", *which, "--", "--epochs", "4")
    assert request.options.image.reference is not None


def test_an_image_given_twice_is_refused(tmp_path: Path):
    options = JobOptions(image=ImageOptions(reference="docker://a"))
    with pytest.raises(InputError, match="names a second one"):
        load_run_request([], tmp_path, options, "docker://b")


def test_the_program_of_an_image_needs_no_command(tmp_path: Path):
    request = load_run_request([], tmp_path, NO_OPTIONS, "docker://python")
    assert (request.program, request.command, request.slug) == ("image", (), "python")


def test_words_that_are_no_text_are_refused_by_their_place(tmp_path: Path):
    with pytest.raises(InputError, match=r"argument 1 .* is not valid UTF-8"):
        load_run_request(["echo", "a\udcff"], tmp_path, NO_OPTIONS)


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="the name of this folder"):
        load_run_request(["true"], tmp_path / "a\udcff", NO_OPTIONS)
    with pytest.raises(InputError, match="the name of this folder"):
        load_train_request("x.py", [], tmp_path / "a\udcff", NO_OPTIONS)


@pytest.mark.parametrize("name", ["a", "sweep-7", "A.b_c-9", "0"])
def test_a_plain_name_names_a_run(name: str):
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", ".a", "a/b", "é", "a\n", "$(x)", "x" * 41, "a'b"])
def test_any_other_name_is_refused_with_the_rule(name: str):
    with pytest.raises(InputError, match="cannot name a run") as caught:
        checked_name(name)
    assert "letters, digits" in caught.value.hint


@given(st.text(max_size=60))
def test_every_target_gives_a_slug_that_may_name_a_run(target: str):
    slug = JobRequest(kind="run", target=target, command=("x",), workdir=Path("/")).slug
    assert checked_name(slug) == slug


def test_equal_requests_on_one_site_share_a_fingerprint_and_others_do_not(tmp_path: Path):
    request = load_run_request(["echo", "a b"], tmp_path, NO_OPTIONS)
    same = load_run_request(["echo", "a b"], tmp_path, NO_OPTIONS)
    other = load_run_request(["echo", "a", "b"], tmp_path, NO_OPTIONS)
    assert request.fingerprint("lumi", tmp_path) == same.fingerprint("lumi", tmp_path)
    prints = {request.fingerprint("lumi", tmp_path), request.fingerprint("local", tmp_path),
              request.fingerprint("lumi", tmp_path / "x"), other.fingerprint("lumi", tmp_path)}  # fmt: skip
    assert len(prints) == 4


def test_variables_come_from_options_files_and_the_shell(tmp_path: Path):
    file = tmp_path / "env"
    file.write_text("# secrets\n\nKEY=from file\nOTHER=a=b 'c'\n  HERE  \n")
    variables = load_variables(["KEY=from option", "EMPTY="], file, {"HERE": "yes"})
    assert variables == {"KEY": "from option", "OTHER": "a=b 'c'", "HERE": "yes", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1X=y", "'1X' is not a variable's name"),
        ("a b=c", "is not a variable's name"),
        ("=x", "'' is not a variable's name"),
        ("X;id=1", "is not a variable's name"),
        ("MISSING", "MISSING is not set here"),
        ("SLURM_JOB_ID=1", "not yours to set"),
        ("SHELLOPTS=x", "not yours to set"),
        ("DEEPHPC_RUN_ID=1", "not yours to set"),
        ("BYTES=a\udcff", "BYTES holds bytes that are not UTF-8"),
    ],
)
def test_a_variable_that_cannot_be_given_is_refused_without_its_value(text: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_variables([text], None, {})
    assert "\udcff" not in caught.value.message


def test_an_env_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="gone: No such file"):
        load_variables([], tmp_path / "gone", {})
    (tmp_path / "bytes").write_bytes(b"A=\xff\n")
    with pytest.raises(InputError, match="not UTF-8 text"):
        load_variables([], tmp_path / "bytes", {})


def test_the_active_venv_counts_only_while_it_exists(tmp_path: Path):
    assert find_active_venv({}) is None
    assert find_active_venv({"VIRTUAL_ENV": str(tmp_path)}) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text("")
    assert find_active_venv({"VIRTUAL_ENV": str(tmp_path)}) == tmp_path


def test_an_active_conda_environment_counts_where_no_venv_is_active(tmp_path: Path):
    assert find_active_venv({"CONDA_PREFIX": str(tmp_path)}) is None
    (tmp_path / "conda-meta").mkdir()
    assert find_active_venv({"CONDA_PREFIX": str(tmp_path)}) == tmp_path
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    both = {"CONDA_PREFIX": str(tmp_path), "VIRTUAL_ENV": str(tmp_path / "venv")}
    assert find_active_venv(both) == tmp_path / "venv"


@pytest.mark.parametrize("state", ["", "[]", '{"env_vars": 1}', '{"env_vars": {"A": 1}}', "{" * 100_000, '"\xff"'])
def test_what_a_conda_environment_sets_is_read_and_what_is_broken_passed_over(tmp_path: Path, state: str):
    for name, text in (("etc/conda/env_vars.d/p.json", '{"A": "of p", "SLURM_X": "1"}'), ("conda-meta/state", state)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert environment_variables(tmp_path) == {"A": "of p"}
    (tmp_path / "conda-meta/state").write_text('{"env_vars": {"A": "mine", "B": "it\'s"}}')
    assert environment_variables(tmp_path) == {"A": "mine", "B": "it's"}
    assert environment_variables(None) == {}


def test_a_module_is_not_chosen_where_there_is_none(tmp_path: Path):
    (tmp_path / "train.py").touch()
    options = JobOptions(image=ImageOptions(model="leaves"))
    for load in (
        lambda: load_train_request("train.py", [], tmp_path, options),
        lambda: load_run_request(["id"], tmp_path, options),
    ):
        with pytest.raises(InputError, match="--model leaves is for modules"):
            load()
    assert "--model" in load_train_request("posenet", [], tmp_path, options).command
