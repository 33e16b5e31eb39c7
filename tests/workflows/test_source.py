"""Which code a run used."""

import subprocess
from pathlib import Path

import pytest

from deephpc.workflows.source import load_source_state


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a projéct"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("one\n")
    (folder / ".gitignore").write_text("data/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_is_its_commit(checkout: Path):
    state, diff = load_source_state(checkout)
    assert state is not None
    assert (state.root, state.commit, state.branch) == (checkout, git(checkout, "rev-parse", "HEAD"), "main")
    assert (state.is_dirty, state.untracked, state.note, diff) == (False, (), "", "")


def test_changes_and_untracked_files_are_recorded(checkout: Path):
    (checkout / "train.py").write_text("two\n")
    (checkout / "néw file").write_text("")
    (checkout / "data").mkdir()
    (checkout / "data" / "big").write_text("")
    state, diff = load_source_state(checkout)
    assert state is not None
    assert state.is_dirty
    assert state.untracked == ("néw file",)
    assert "-one\n+two\n" in diff


def test_a_recorded_diff_brings_the_code_back(checkout: Path):
    (checkout / "train.py").write_text("two\n")
    _, diff = load_source_state(checkout)
    git(checkout, "checkout", "-q", ".")
    (checkout.parent / "source.diff").write_text(diff)
    git(checkout, "apply", "../source.diff")
    assert (checkout / "train.py").read_text() == "two\n"


def test_a_checkout_without_a_commit_has_none(tmp_path: Path):
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("")
    state, _ = load_source_state(tmp_path)
    assert state is not None
    assert (state.commit, state.untracked) == ("", ("train.py",))


def test_outside_of_any_checkout_there_is_nothing(tmp_path: Path):
    assert load_source_state(tmp_path) == (None, "")
    assert load_source_state(tmp_path / "gone") == (None, "")
