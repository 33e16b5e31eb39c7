"""The record of jobs: nothing is lost, whoever writes at once, and every trouble is one line."""

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from deephpc.errors import InputError, SiteError
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.record import JobFilter, NameTaken, Record, Tally
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState
from tests.fakes.samples import NOON, a_job, after
from tests.fakes.waiting import DEADLINE_S

WRITERS, ROWS = 50, 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "deephpc.db"


@pytest.fixture
def record(path: Path):
    with Record(path) as opened:
        yield opened


def write_rows(path: Path, number: int) -> None:
    """Add runs and bring them to their end, as one of many processes."""
    for row in range(ROWS):
        run_id = f"run-{number:02d}-{row}"
        with Record(path) as record:
            record.add(a_job(path.parent, run_id, job_id=f"{number}{row}"))
            ended = Standing(state=JobState.COMPLETED, source="result", exit_code=0, seen_at=after(60))
            record.settle({run_id: (ended, {})}, after(60))


def hold_exclusively(path: Path, has_lock, seconds: float) -> None:
    """Lock the whole file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("begin exclusive")
        has_lock.set()
        multiprocessing.Event().wait(seconds)
        connection.execute("commit")


def test_a_job_reads_back_as_it_was_written(record: Record, tmp_path: Path):
    job = a_job(tmp_path, target="höhe 'x' $(y)\n", resources=Resources(nodes=2, memory_mib=1024, exclusive=True),
                tasks={1: JobState.PENDING, 5: JobState.RUNNING}, cancelled_at=after(3), nodes="n[1-2]")  # fmt: skip
    record.add(job)
    assert record.get(job.run_id) == job


def test_the_file_and_its_folder_are_the_users_alone(record: Record, path: Path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_write_ahead_log_is_never_used(record: Record, path: Path, tmp_path: Path):
    record.add(a_job(tmp_path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("delete",)
    assert sorted(one.name for one in path.parent.iterdir()) == ["deephpc.db"]


def test_a_taken_name_is_refused(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    with pytest.raises(NameTaken, match="run-a-0001"):
        record.add(a_job(tmp_path))


def test_every_change_of_state_is_an_event(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, state=JobState.SUBMITTING, seen_at=None))
    for state, seconds in ((JobState.PENDING, 1), (JobState.PENDING, 2), (JobState.RUNNING, 3)):
        standing = Standing(state=state, source="queue", reason="Priority", seen_at=after(seconds))
        record.settle({"run-a-0001": (standing, {})}, after(seconds))
    events = [(event.from_state, event.to_state, event.at, event.source) for event in record.events("run-a-0001")]
    assert events == [
        (None, JobState.SUBMITTING, NOON, "record"),
        (JobState.SUBMITTING, JobState.PENDING, after(1), "queue"),
        (JobState.PENDING, JobState.RUNNING, after(3), "queue"),
    ]


def test_a_look_that_began_before_the_end_was_seen_does_not_undo_it(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    record.settle({"run-a-0001": (Standing(state=JobState.COMPLETED, seen_at=after(60)), {})}, after(60))
    record.settle({"run-a-0001": (Standing(state=JobState.RUNNING, seen_at=after(59)), {})}, after(61))
    assert record.get("run-a-0001").state is JobState.COMPLETED


def test_a_run_that_was_confirmed_meanwhile_is_not_called_lost(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, state=JobState.SUBMITTING, job_id=None, seen_at=None))
    lost = Standing(state=JobState.LOST, source="record")
    confirmed = {"job_id": "4711", "state": JobState.PENDING, "seen_at": after(1)}
    record.change("run-a-0001", lambda job: job.model_copy(update=confirmed), after(1))
    record.settle({"run-a-0001": (lost, {})}, after(2))
    assert record.get("run-a-0001").state is JobState.PENDING


def test_a_forgotten_run_leaves_neither_row_nor_event(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    record.forget("run-a-0001")
    assert not record.has("run-a-0001")
    assert record.events("run-a-0001") == []


def test_put_back_rows_replace_what_stood_there(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    ended = a_job(tmp_path, state=JobState.FAILED, exit_code=7)
    assert record.put_back([ended, a_job(tmp_path, "run-b-0002")]) == 2
    assert record.get("run-a-0001") == ended
    assert record.has("run-b-0002")


def test_metrics_keep_their_last_value(record: Record):
    record.keep_metrics({"run-a-0001": {"loss": 0.5, "accuracy": 0.9}, "run-a-0002_3": {"loss": 7.0}})
    record.keep_metrics({"run-a-0001": {"loss": 0.25}})
    assert record.metrics(["run-a-0001", "run-b-0002"]) == {"run-a-0001": {"loss": 0.25, "accuracy": 0.9}}


def test_who_recorded_how_a_run_ended_alone_is_told_so(record: Record, tmp_path: Path):
    for number in (1, 2):
        record.add(a_job(tmp_path, f"run-a-000{number}"))
    ends = [
        {"run-a-0001": (Standing(state=JobState.COMPLETED, source="result", seen_at=after(seconds)), {})}
        for seconds in (10, 12, 8)
    ]
    assert [record.settle(end, after(20)) for end in ends] == [{"run-a-0001"}, set(), set()]
    assert record.get("run-a-0001").seen_at == after(10)
    assert record.settle({}, after(20)) == set()


@pytest.fixture
def three(record: Record, tmp_path: Path) -> Record:
    record.add(a_job(tmp_path, "train-digits-7f3a", job_id="11", kind="train", target="digits/train.py"))
    record.add(a_job(tmp_path, "train-digits-81c2", job_id="12", kind="train", target="digits/train.py",
                     state=JobState.FAILED, created_at=after(10)))  # fmt: skip
    record.add(a_job(tmp_path, "run-sweep-0001", job_id="13", tasks={0: JobState.PENDING, 7: JobState.RUNNING},
                     created_at=after(20)))  # fmt: skip
    return record


@pytest.mark.parametrize(
    ("word", "run_id", "task"),
    [
        ("train-digits-7f3a", "train-digits-7f3a", None),
        ("train-digits-7", "train-digits-7f3a", None),
        ("run", "run-sweep-0001", None),
        ("13", "run-sweep-0001", None),
        ("13_7", "run-sweep-0001", 7),
        ("run-sweep-0001_0", "run-sweep-0001", 0),
        ("run-s_7", "run-sweep-0001", 7),
    ],
)
def test_a_run_is_found_by_what_people_type(three: Record, word: str, run_id: str, task: int | None):
    job, number = three.resolve(word)
    assert (job.run_id, number) == (run_id, task)


@pytest.mark.parametrize("task", [None, 3])
@pytest.mark.parametrize(("job_id", "word"), [("4711;box", "4711"), ("4711;box", "4711;box"), ("8;a-1", "8")])
def test_a_run_on_a_named_cluster_is_found_by_its_number(
    three: Record, tmp_path: Path, job_id: str, word: str, task: int | None
):
    tasks = {} if task is None else {3: JobState.PENDING}
    three.add(a_job(tmp_path, "run-there-0001", job_id=job_id, tasks=tasks))
    number, semicolon, cluster = word.partition(";")
    typed = word if task is None else f"{number}_{task}{semicolon}{cluster}"
    job, found = three.resolve(typed)
    assert (job.run_id, found) == ("run-there-0001", task)


def test_a_number_of_two_clusters_is_no_single_run(three: Record, tmp_path: Path):
    for name in ("box", "big"):
        three.add(a_job(tmp_path, f"run-{name}-0001", job_id=f"4711;{name}"))
    with pytest.raises(InputError, match="fits more than one run"):
        three.resolve("4711")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train-d", "fits more than one run"),
        ("nothing", "no run named 'nothing'"),
        ("", "no run named ''"),
        ("%", "no run named"),
        ("run-sweep-0001_3", "has no array task 3"),
        ("train-digits-7f3a_0", "has no array task 0"),
        ("1_", "no run named"),
    ],
)
def test_a_word_that_fits_no_single_run_is_refused(three: Record, word: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        three.resolve(word)
    assert caught.value.hint


def test_runs_are_listed_newest_first_and_filtered(three: Record):
    def names(**wanted: object) -> list[str]:
        return [job.run_id for job in three.find(JobFilter.model_validate(wanted))]

    assert names() == ["run-sweep-0001", "train-digits-81c2", "train-digits-7f3a"]
    assert names(limit=1) == ["run-sweep-0001"]
    assert names(states=(JobState.FAILED,)) == ["train-digits-81c2"]
    assert names(kind="train", text="7f") == ["train-digits-7f3a"]
    assert names(text="digits/") == ["train-digits-81c2", "train-digits-7f3a"]
    assert names(since=after(15)) == ["run-sweep-0001"]
    assert names(text="%") == []


def test_unfinished_and_unsent_runs_are_found(three: Record, tmp_path: Path):
    three.add(a_job(tmp_path, "run-u-0001", state=JobState.SUBMITTING, job_id=None, fingerprint="u"))
    three.add(a_job(tmp_path, "run-u-0002", state=JobState.LOST, job_id=None, fingerprint="u"))
    assert {job.run_id for job in three.unfinished()} == {"run-u-0001", "train-digits-7f3a", "run-sweep-0001"}
    assert [job.run_id for job in three.unsent("u", NOON)] == ["run-u-0001", "run-u-0002"]
    assert [job.run_id for job in three.lost_since(NOON)] == ["run-u-0002"]
    assert three.unsent("u", after(1)) == []
    assert three.count("u") == 2


@pytest.mark.slow
def test_fifty_processes_write_at_once_and_no_row_is_lost(path: Path):
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["tests.jobs.test_record"])
    processes = [spawn.Process(target=write_rows, args=(path, number)) for number in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    with Record(path) as record:
        jobs = record.find(JobFilter(limit=WRITERS * ROWS + 1))
        assert len(jobs) == WRITERS * ROWS
        assert {job.state for job in jobs} == {JobState.COMPLETED}
        assert all(len(record.events(job.run_id)) == 2 for job in jobs[:20])


@pytest.mark.slow
def test_a_file_that_another_program_locks_is_waited_for(path: Path, tmp_path: Path):
    Record(path).close()
    spawn = multiprocessing.get_context("forkserver")
    has_lock = spawn.Event()
    holder = spawn.Process(target=hold_exclusively, args=(path, has_lock, 0.5))
    holder.start()
    assert has_lock.wait(DEADLINE_S)
    with Record(path) as record:
        record.add(a_job(tmp_path))
        assert record.has("run-a-0001")
    holder.join(DEADLINE_S)
    assert holder.exitcode == 0


def test_a_damaged_file_is_one_line_with_the_way_out(path: Path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(SiteError, match="is damaged") as caught:
        Record(path)
    assert "\n" not in caught.value.message
    assert "jobs rebuild" in caught.value.hint


def test_a_record_of_another_version_is_left_alone(path: Path):
    Record(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 99")
    with pytest.raises(SiteError, match="schema 99, ours 1"):
        Record(path)


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SiteError, match=r"cannot write in .*/state") as caught:
        Record(tmp_path / "state" / "deephpc.db")
    assert "\n" not in caught.value.message
    assert "DEEPHPC_STATE_DIR" in caught.value.hint


def test_a_full_disk_is_one_line_and_leaves_the_record_whole(path: Path, tmp_path: Path):
    Record(path).close()
    program = (
        "import resource, sys; from pathlib import Path; from deephpc.errors import SiteError\n"
        "from deephpc.jobs.record import Record; from tests.fakes.samples import a_job\n"
        "record = Record(Path(sys.argv[1])); size = Path(sys.argv[1]).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "try:\n"
        "    for number in range(1000): record.add(a_job(Path('/x'), f'run-{number}'))\n"
        "except SiteError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"cannot write the record {path}")
    with Record(path) as record:
        assert record.has("run-0")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_place_without_write_permission_is_one_line_and_names_the_permissions(tmp_path: Path, is_there: bool):
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / "deephpc.db"
    if is_there:
        Record(path).close()
        path.chmod(0o400)
    folder.chmod(0o500)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere; install util-linux's setpriv, or run the tests as a user")
    plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    program = (
        "import sys; from pathlib import Path; from deephpc.errors import SiteError\n"
        "from deephpc.jobs.record import Record\n"
        "from tests.fakes.samples import a_job\n"
        "try: Record(Path(sys.argv[1])).add(a_job(Path('/x')))\n"
        "except SiteError as error: print(error.message, error.hint, sep='\\n')\n"
    )
    argv = [*plain, sys.executable, "-c", program, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    message, hint = done.stdout.splitlines()
    assert done.stderr == ""
    assert message.startswith("cannot write ")
    assert str(folder) in message
    assert "permissions" in hint
    assert "DEEPHPC_STATE_DIR" in hint


def test_every_field_of_a_job_has_a_column(record: Record, path: Path):
    with closing(sqlite3.connect(path)) as connection:
        columns = {row[1] for row in connection.execute("pragma table_info(jobs)")}
    assert columns == set(Job.model_fields)


def test_a_tally_counts_what_fits_beyond_the_limit(record: Record, tmp_path: Path):
    for number in range(60):
        kind = "serve" if number % 3 == 0 else "run"
        state = JobState.FAILED if number % 2 else JobState.PENDING
        record.add(a_job(tmp_path, f"run-a-{number:04}", kind=kind, state=state, created_at=after(number)))
    for wanted, matching in (
        (JobFilter(), 60),
        (JobFilter(limit=7), 60),
        (JobFilter(kind="serve"), 20),
        (JobFilter(kind="serve", states=(JobState.FAILED,)), 10),
        (JobFilter(text="a-000"), 10),
        (JobFilter(since=after(50)), 10),
        (JobFilter(text="nothing"), 0),
    ):
        assert record.tally(wanted) == Tally(matching=matching, recorded=60)
        assert len(record.find(wanted)) == min(matching, wanted.limit)


def spoil(path: Path, run_id: str, column: str, value: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"update jobs set {column} = ? where run_id = ?", [value, run_id])


@pytest.mark.parametrize(("column", "value"), [("tasks", "{"), ("tasks", "[1]"), ("created_at", "x")])
def test_a_row_that_cannot_be_read_hides_no_other(record: Record, path: Path, tmp_path: Path, column: str, value: str):
    for run_id in ("run-a-0001", "run-b-0002"):
        record.add(a_job(tmp_path, run_id, tasks={1: JobState.PENDING}))
    spoil(path, "run-a-0001", column, value)
    assert [job.run_id for job in record.find(JobFilter())] == ["run-b-0002"]
    (trouble,) = record.troubles
    assert "run-a-0001" in trouble
    assert "jobs rebuild" in trouble


def test_a_state_of_another_version_is_unknown(record: Record, path: Path, tmp_path: Path):
    record.add(a_job(tmp_path, tasks={1: JobState.PENDING}))
    spoil(path, "run-a-0001", "state", "DREAMING")
    spoil(path, "run-a-0001", "tasks", '{"1":"DREAMING"}')
    (job,) = record.unfinished()
    assert (job.state, job.tasks) == (JobState.UNKNOWN, {1: JobState.UNKNOWN})
