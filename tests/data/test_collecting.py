"""Results of a run on their way to real servers: whole, once, and gone on with after whatever stopped them."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.data.deadline import within
from deephpc.data.storage import Interrupted, Missing
from deephpc.errors import DataError
from deephpc.jobs.delivery import Delivery, note_delivery
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from deephpc.render.data import render_collected
from deephpc.workflows.collect import CollectResult, carry_out_collect, check_all_sent, plan_collect
from deephpc.workflows.deliveries import Owed, deliver, deliver_owed, find_owed
from tests.fakes.samples import NOON, a_job

from .conftest import Desk, Server
from .servers import Relay

MIB = 1 << 20


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run that ended, with results."""
    made = a_job(tmp_path, state=JobState.TIMEOUT)
    write(made.folder, "output/ü b/model", os.urandom(MIB))
    write(made.folder, "output/empty", b"")
    write(made.folder, "checkpoints/9.pt", os.urandom(MIB))
    for name in ("job.log", "result.json", "plan.json", "claim"):
        write(made.folder, name, name.encode())
    return made


def write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def collect(job: Job, place: str, desk: Desk, task: int | None = None) -> CollectResult:
    return carry_out_collect(plan_collect(job, task, place), desk.places())


def test_what_is_there_is_not_sent_again_and_what_changed_is(server: Server, desk: Desk, job: Job):
    first = collect(job, server.place, desk)
    assert (first.files, first.transferred_files, first.whole) == (6, 6, True)
    assert first.destination == f"{server.place}/{job.run_id}"
    again = collect(job, f"{server.place}/", desk)
    assert (again.files, again.transferred_files, again.transferred_bytes, again.digest) == (6, 0, 0, first.digest)
    write(job.folder, "checkpoints/10.pt", b"more")
    more = collect(job, server.place, desk)
    assert (more.files, more.transferred_files, more.transferred_bytes) == (7, 1, 4)


def test_of_an_array_each_task_has_its_own(webdav: Server, desk: Desk, tmp_path: Path):
    job = a_job(
        tmp_path, state=JobState.RUNNING, tasks={1: JobState.COMPLETED, 2: JobState.RUNNING, 3: JobState.PENDING}
    )
    for task in (1, 2):
        write(job.folder, f"tasks/{task}/output/x", b"x")
        write(job.folder, f"job-{task}.log", b"x")
    one, rest = collect(job, webdav.place, desk, 1), collect(job, webdav.place, desk)
    assert (one.whole, one.files, rest.whole, rest.files, rest.transferred_files) == (True, 2, False, 3, 1)
    root = (webdav.root or tmp_path) / webdav.folder / job.run_id
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        *("job-1.log", "tasks/1/output/x", "tasks/2/output/x")
    ]


def test_a_run_that_goes_on_sends_what_its_program_keeps_and_no_more(webdav: Server, desk: Desk, job: Job):
    runs = job.model_copy(update={"state": JobState.RUNNING})
    sent = collect(runs, webdav.place, desk)
    assert (sent.whole, sent.files) == (False, 3)


def test_links_to_folders_and_what_is_no_file_stay(webdav: Server, desk: Desk, job: Job):
    (job.folder / "checkpoints" / "latest").symlink_to("9.pt")
    (job.folder / "output" / "loop").symlink_to(job.folder)
    (job.folder / "output" / "nothing").symlink_to("gone")
    (job.folder / "output" / "secret").symlink_to("/etc/hostname")
    os.mkfifo(job.folder / "output" / "pipe")
    sent = collect(job, webdav.place, desk)
    assert {each.path: each.reason for each in sent.left_out} == {
        "output/loop": "is a link to a folder",
        "output/nothing": "is a link to nothing",
        "output/secret": "is a link out of the run folder",
        "output/pipe": "is neither a file nor a folder",
    }
    assert sent.files == 7


def test_a_run_folder_that_is_gone_is_not_taken_for_an_empty_one(webdav: Server, desk: Desk, job: Job, tmp_path: Path):
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        record.transfers.expect(job.run_id, f"{webdav.place}/{job.run_id}", NOON)
        job.folder.rename(tmp_path / "elsewhere")
        with pytest.raises(Missing, match="is not there"):
            collect(job, webdav.place, desk)
        assert find_owed(record, NOON) == ()


def test_what_can_never_be_sent_is_named_and_the_run_is_delivered(server: Server, desk: Desk, job: Job, tmp_path: Path):
    (job.folder / "output" / os.fsdecode(b"\xff")).write_text("x")
    (job.folder / "output" / "old").symlink_to("gone")
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        plan = plan_collect(job, None, server.place)
        record.transfers.expect(job.run_id, plan.destination, NOON)
        sent = deliver(record, plan, job, desk.places(), lambda: NOON)
        assert (sent.files, sent.transferred_files, sent.whole) == (6, 6, True)
        assert [(each.path, each.reason) for each in sent.left_out] == [
            ("output/old", "is a link to nothing"),
            (r"output/\xff", "is not UTF-8"),
        ]
        (kept,) = record.transfers.of(job.run_id)
        assert (kept.state, kept.reason) == ("done", "2 left out: output/old is a link to nothing; and 1 more")
        assert find_owed(record, NOON) == ()
    with pytest.raises(DataError, match=": output/old is a link to nothing; and 1 more"):
        check_all_sent(sent)
    assert '"left_out": [{"path": "output/old"' in render_collected(sent, as_json=True)


def test_a_place_that_takes_nothing_is_no_delivery(desk: Desk, job: Job, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        plan = plan_collect(job, None, f"{tmp_path}/file/below")
        record.transfers.expect(job.run_id, plan.destination, NOON)
        with pytest.raises(DataError, match="a file lies where a folder should be"):
            deliver(record, plan, job, desk.places(), lambda: NOON)
        (owed,) = find_owed(record, NOON)
        assert owed.last.state == "failed"


def test_what_stopped_in_the_middle_is_owed_and_gone_on_with(
    webdav: Server, desk: Desk, job: Job, relayed: Callable[[Server], Relay], tmp_path: Path
):
    relay = relayed(webdav)
    relay.stall_after = MIB + MIB // 2
    place = webdav.place
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        plan = plan_collect(job, None, place)
        record.transfers.expect(job.run_id, plan.destination, NOON)
        (owed,) = find_owed(record, NOON)
        assert (owed.last.state, owed.may_be_tried(NOON)) == ("waiting", True)
        (job.folder / "plan.json").unlink()  # it names no place any more: said in one line
        sent, said = deliver_owed(record, owed, desk.places(), lambda: NOON, 5)
        assert not sent and "without --collect" in said
        relay.stall_after, relay.cut_after, relay.cuts = None, 1000, 10**6
        with pytest.raises(Interrupted):
            deliver(record, plan, job, desk.places(), lambda: NOON)
        (owed,) = find_owed(record, NOON)
        assert (owed.last.state, owed.last.by, owed.may_be_tried(NOON)) == ("failed", "login", False)
        relay.cut_after = None
        done = deliver(record, plan, job, desk.places(), lambda: NOON)
        assert (done.files, done.whole) == (5, True)
        assert find_owed(record, NOON) == ()


@pytest.mark.parametrize(
    ("ended_before", "minutes"),
    [(timedelta(minutes=1), 10), (timedelta(hours=3), 180), (timedelta(days=40), 24 * 60)],
)
def test_storage_that_keeps_failing_is_tried_less_often(job: Job, ended_before: timedelta, minutes: int):
    last = Delivery(destination="s3://b/run", state="failed", by="login", at=NOON)
    owed = Owed(job.model_copy(update={"ended_at": NOON - ended_before}), last)
    assert not owed.may_be_tried(NOON + timedelta(minutes=minutes - 1))
    assert owed.may_be_tried(NOON + timedelta(minutes=minutes))


@pytest.mark.parametrize(("task", "settles"), [(None, True), (3, False)])
def test_results_that_all_went_elsewhere_wait_no_more(
    webdav: Server, desk: Desk, tmp_path: Path, task: int | None, settles: bool
):
    job = a_job(tmp_path, state=JobState.FAILED, tasks={3: JobState.FAILED, 4: JobState.COMPLETED})
    for number in job.tasks:
        write(job.folder, f"tasks/{number}/output/x", b"x")
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        record.transfers.expect(job.run_id, f"rshare:there/{job.run_id}", NOON)
        deliver(record, plan_collect(job, task, webdav.place), job, desk.places(), lambda: NOON)
        assert (find_owed(record, NOON) == ()) is settles


def test_what_its_job_sent_is_known_though_the_results_went_elsewhere_too(webdav: Server, desk: Desk, tmp_path: Path):
    job = a_job(tmp_path, state=JobState.COMPLETED)
    write(job.folder, "output/x", b"x")
    asked = f"rshare:there/{job.run_id}"
    with Record(tmp_path / "state" / "deephpc.db") as record:
        record.add(job)
        record.transfers.expect(job.run_id, asked, NOON)
        deliver(record, plan_collect(job, None, webdav.place), job, desk.places(), lambda: NOON)
        sent = Delivery(destination=asked, state="done", by="job", at=NOON)
        note_delivery(job.files.task(None), sent, {"attempt": 1, "job_id": "4711", "host": "c1"})
        assert find_owed(record, NOON) == ()
        assert ("done", "job") in {(each.state, each.by) for each in record.transfers.of(job.run_id)}


def test_a_job_that_has_no_more_time_leaves_nothing_half_and_no_lock(
    webdav: Server, desk: Desk, job: Job, relayed: Callable[[Server], Relay], tmp_path: Path
):
    relay = relayed(webdav)
    relay.stall_after = 1000
    with pytest.raises(Interrupted, match="over"), within(0.5, "time is over"):
        collect(job, webdav.place, desk)
    relay.stall_after = None
    assert collect(job, webdav.place, desk).transferred_files == 6
