"""How a server stands follows from its row and from what its gateway noted, half of it or too old."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.state import JobState
from deephpc.serve.service import SERVICE, Service, render_service
from deephpc.workflows.servers import gather_server, gather_servers, load_stages
from tests.fakes.samples import a_job, after


def event(name: str, at: datetime, **members: object) -> str:
    return (
        json.dumps({"at": at.isoformat(), "event": name, "attempt": 1, "job_id": "1", "host": "c1", **members}) + "\n"
    )


def a_server(folder: Path, *events: str, **changes: object) -> Job:
    job = a_job(folder, "serve-a-0001", kind="serve", **changes)
    job.folder.mkdir(exist_ok=True)
    (job.folder / SERVICE).write_text(render_service(Service()))
    (job.folder / "events.jsonl").write_text("".join(events))
    return job


LISTENING = event("serve", after(5), stage="listening", after_s=0.1, port=61001)
WARMING = event("serve", after(9), stage="warming", after_s=4.0, model="pose_net")
READY = event("serve", after(10), stage="ready", after_s=1.0, model="pose_net")
FAILED = event("serve", after(10), stage="failed", reason="it does not listen", last_lines=["a", "b"])


def test_stages_are_those_of_the_newest_attempt_and_foreign_lines_are_passed_over(tmp_path: Path):
    lines = (event("started", after(1)), READY, event("started", after(60)), '{"half', "\n", '{"event": "serve"}\n')
    job = a_server(tmp_path, *lines, event("serve", after(61), stage="listening", port=61002, news="later"))
    (stage,) = load_stages(job.files)
    assert (stage.stage, stage.host, stage.port) == ("listening", "c1", 61002)


@pytest.mark.parametrize(
    ("state", "events", "seen_s", "stage"),
    [
        (JobState.PENDING, (), 0, "queued"),
        (JobState.SUBMITTING, (), 0, "queued"),
        (JobState.RUNNING, (), 0, "starting"),
        (JobState.RUNNING, (LISTENING, WARMING), 0, "warming"),
        (JobState.PENDING, (LISTENING,), 0, "listening"),  # the queue was asked before it began
        (JobState.PENDING, (LISTENING, READY), 60, "queued"),  # its node died, and it waits again
        (JobState.RUNNING, (LISTENING, READY), 60, "ready"),
        (JobState.FAILED, (LISTENING, FAILED), 60, "failed"),
        (JobState.CANCELLED, (LISTENING, READY), 60, "ended"),
    ],
)
def test_the_stage_is_the_newest_word_of_job_or_gateway(
    tmp_path: Path, state: JobState, events: tuple[str, ...], seen_s: float, stage: str
):
    job = a_server(tmp_path, event("started", after(4)), *events, state=state, seen_at=after(seen_s))
    assert gather_server(job).stage == stage


def test_a_server_that_failed_says_why_and_with_which_last_lines(tmp_path: Path):
    server = gather_server(a_server(tmp_path, LISTENING, FAILED, state=JobState.FAILED, reason="exit code 1"))
    assert (server.reason, server.last_lines) == ("it does not listen", ("a", "b"))


def test_the_name_of_the_module_is_what_the_server_said(tmp_path: Path):
    assert gather_server(a_server(tmp_path, LISTENING, WARMING, READY, state=JobState.RUNNING)).model == "pose_net"


def test_a_server_whose_folder_is_gone_hides_no_other(tmp_path: Path):
    gone = a_job(tmp_path, "serve-b-0002", kind="serve")
    servers, troubles = gather_servers([gone, a_server(tmp_path)])
    assert [server.run_id for server in servers] == ["serve-a-0001"]
    assert len(troubles) == 1


def test_another_run_is_no_server(tmp_path: Path):
    with pytest.raises(InputError, match="is no server"):
        gather_server(a_job(tmp_path))


@pytest.mark.parametrize(("events", "is_told"), [((LISTENING, WARMING), False), ((LISTENING, READY), True)])
def test_what_a_server_opened_is_told_once_it_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: tuple[str, ...], is_told: bool
):
    monkeypatch.setattr("deephpc.workflows.servers.tell_opened", lambda _: "opened for its answers: a.pt")
    job = a_server(tmp_path, *events, state=JobState.RUNNING)
    assert bool(gather_server(job).opened) is is_told
