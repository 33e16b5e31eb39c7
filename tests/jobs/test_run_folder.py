"""The files of a run: named in one place, never met half written."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError, SiteError
from deephpc.jobs.run_folder import RunFolder, read_json, read_json_lines, read_text, unwritable, write_atomically
from tests.fakes.samples import A_TENTH


def test_a_run_folder_is_its_owners_alone(tmp_path: Path):
    folder = RunFolder(tmp_path / "runs" / "run-a")
    folder.create()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_run_folder_that_exists_is_refused(tmp_path: Path):
    RunFolder(tmp_path / "run-a").create()
    with pytest.raises(InputError, match="run-a exists already"):
        RunFolder(tmp_path / "run-a").create()


def test_a_file_in_the_place_of_the_work_dir_is_told_as_such(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(SiteError, match="a file lies where a folder should be"):
        RunFolder(tmp_path / "runs" / "run-a").create()
    with pytest.raises(SiteError, match="a file lies where a folder should be"):
        RunFolder(tmp_path / "runs" / "deeper" / "run-a").create()


def test_every_task_of_an_array_has_files_of_its_own(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert folder.task(None).log == tmp_path / "job.log"
    assert folder.task(3).log == tmp_path / "job-3.log"
    assert folder.task(3).result == tmp_path / "tasks" / "3" / "result.json"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "over quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input"),
    ],
)
def test_what_is_wrong_with_a_place_is_said_in_words(number: int, words: str):
    error = unwritable(Path("/scratch"), OSError(number, os.strerror(number)))
    assert error.message.startswith(f"cannot write in /scratch: {words}")
    assert error.hint


def test_a_file_appears_whole_and_with_its_mode(tmp_path: Path):
    path = tmp_path / "plan.json"
    write_atomically(path, "é\n", mode=0o600)
    write_atomically(path, "two\n", mode=0o600)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path):
    program = (
        "import resource, sys; from pathlib import Path; from deephpc.errors import SiteError\n"
        "from deephpc.jobs.run_folder import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: write_atomically(Path(sys.argv[1]), 'new' * 100)\n"
        "except SiteError as error: print(error.message)\n"
    )
    path = tmp_path / "plan.json"
    path.write_text("old")
    argv = [sys.executable, "-c", program, path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == f"cannot write in {tmp_path}: File too large\n"
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]


def test_a_place_without_permission_is_one_line(tmp_path: Path):
    tmp_path.chmod(0o500)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere; install util-linux's setpriv, or run the tests as a user")
    plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    program = (
        "import sys; from pathlib import Path; from deephpc.errors import SiteError\n"
        "from deephpc.jobs.run_folder import RunFolder\n"
        "try: RunFolder(Path(sys.argv[1])).create()\n"
        "except SiteError as error: print(error.message)\n"
    )
    argv = [*plain, sys.executable, "-c", program, str(tmp_path / "run-a")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    tmp_path.chmod(0o700)
    assert done.stdout == f"cannot write in {tmp_path}: no permission to write\n"


@pytest.mark.parametrize("text", ["", "{", '{"a":', "[1]", "null", "[" * 100_000, "\x00"])
def test_what_is_no_whole_json_object_is_none(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") is None
    assert list(read_json_lines(tmp_path / "x.json")) == []


def test_a_file_that_is_not_there_is_none(tmp_path: Path):
    assert read_text(tmp_path / "x") is None
    assert read_text(tmp_path / "x" / "y") is None
    assert read_json(tmp_path / "x") is None


def test_a_folder_in_the_place_of_a_file_is_the_sites_fault(tmp_path: Path):
    with pytest.raises(SiteError, match="cannot read"):
        read_text(tmp_path)


def test_half_lines_and_foreign_lines_are_passed_over(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\nWarning: hello\n\xff\xfe\n[2]\n{"a": "x\xe2\x80\xa8y"}\n{"a": 3}\n{"a": ')
    assert [line["a"] for line in read_json_lines(path)] == [1, "x\u2028y", 3]


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@A_TENTH  # costly, and no text of Slurm's
@given(st.lists(st.dictionaries(texts, texts | st.integers() | st.none())))
def test_json_lines_read_back_whatever_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert list(read_json_lines(path)) == rows


def test_a_folder_others_may_rename_in_is_no_place_for_runs(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2777)
    with pytest.raises(SiteError, match="others may rename"):
        RunFolder(shared / "run-a-0001").create()
    assert not list(shared.iterdir())
    shared.chmod(0o1777)  # sticky, as /tmp is: only the owner renames
    RunFolder(shared / "run-a-0001").create()
    RunFolder(shared / "mine" / "run-a-0002").create()
    assert (shared / "mine").stat().st_mode & 0o777 == 0o700
