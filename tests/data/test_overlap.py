"""A copy onto itself is refused, however the two places are spelled, and nothing is touched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deephpc.errors import InputError
from deephpc.jobs.state import JobState
from deephpc.workflows.collect import carry_out_collect, plan_collect
from deephpc.workflows.data import TransferRequest, TransferResult, carry_out_get, carry_out_put
from tests.fakes.samples import a_job

from .conftest import Desk

WAYS: tuple[Callable[..., TransferResult], ...] = (carry_out_get, carry_out_put)


@pytest.fixture
def tree(desk: Desk) -> dict[Path, bytes]:
    """`proj` with files, and links beside it that lead to it."""
    for path in ("proj/a", "proj/sub/b", "proj/sub/sub/b"):
        (desk.tmp / path).parent.mkdir(parents=True, exist_ok=True)
        (desk.tmp / path).write_text(path)
    (desk.tmp / "empty").mkdir()
    (desk.tmp / "link").symlink_to("proj")
    (desk.tmp / "a-link").symlink_to("proj/a")
    (desk.tmp / "a-second-name").hardlink_to(desk.tmp / "proj/a")
    return content_of(desk.tmp)


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("proj", "proj"),
        ("proj", "./proj/"),
        ("proj", "link"),
        ("link", "proj"),
        ("proj", "sub/../proj"),
        ("proj", "proj/copy"),
        ("proj", "link/sub"),
        ("proj/sub", "proj"),  # its sub/b would be written over sub/b
        ("empty", "empty"),
        ("proj/a", "proj/a"),
        ("proj/a", "proj"),
        ("proj/a", "a-link"),
        ("a-link", "proj/a"),
        ("proj/a", "a-second-name"),
    ],
)
def test_a_copy_onto_itself_is_refused(
    way: Callable[..., TransferResult], source: str, target: str, desk: Desk, tree: dict[Path, bytes]
):
    request = TransferRequest(source=f"{desk.tmp}/{source}", target=f"{desk.tmp}/{target}")
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"would be copied (onto|into) itself"):
            way(request, desk.places(), dry_run=dry_run)
    assert content_of(desk.tmp) == tree


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("source", "target"), [("proj", "other"), ("proj/a", "b"), ("proj/sub", "proj-2"), ("proj/a", "proj/c")]
)
def test_a_copy_beside_itself_is_made(
    way: Callable[..., TransferResult], source: str, target: str, desk: Desk, tree: dict[Path, bytes]
):
    request = TransferRequest(source=f"{desk.tmp}/{source}", target=f"{desk.tmp}/{target}")
    assert way(request, desk.places()).transferred_files >= 1


@pytest.mark.parametrize("inside", ["", "/../RUNS", "/RUN", "/RUN/output"])
def test_results_are_not_collected_into_the_run_folder_itself(inside: str, desk: Desk, tmp_path: Path):
    job = a_job(tmp_path, state=JobState.COMPLETED)
    (job.folder / "output").mkdir(parents=True)
    (job.folder / "output" / "model").write_text("it")
    place = f"{job.folder.parent}{inside}".replace("RUNS", job.folder.parent.name).replace("RUN", job.run_id)
    with pytest.raises(InputError, match="itself"):
        carry_out_collect(plan_collect(job, None, place), desk.places())
    assert [path.name for path in (job.folder / "output").iterdir()] == ["model"]
