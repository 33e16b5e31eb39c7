"""Values that tests of several layers start from."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import hypothesis

from deephpc.config import Settings, load_settings
from deephpc.containers.container import Container
from deephpc.jobs.job import Job
from deephpc.jobs.spec import Environment, JobSpec, Resources
from deephpc.jobs.state import JobState

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
TOKEN = "0123456789abcdef0123456789abcdef"


def a_container(**changes: object) -> Container:
    """Return an image in Apptainer."""
    plain = Container(
        engine="apptainer",
        engine_command="apptainer",
        reason="",
        image="docker://docker.io/library/python:3",
        digest="sha256:" + "a" * 64,
        prepared=Path("/cache/x.sif"),
        layout_dir=None,
        cache_dir=Path("/cache"),
        workdir="/",
    )
    return plain.model_copy(update=changes)


def after(seconds: float) -> datetime:
    """Return the time so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def a_job(folder: Path, run_id: str = "run-a-0001", **changes: object) -> Job:
    """Return a pending run."""
    facts: dict[str, object] = {
        "run_id": run_id,
        "token": TOKEN,
        "kind": "run",
        "target": "./simulate",
        "site": "local",
        "scheduler": "slurm",
        "job_id": "4711",
        "folder": folder / run_id,
        "fingerprint": "f" * 64,
        "created_at": NOON,
        "submitted_at": NOON,
        "seen_at": NOON,
        "state": JobState.PENDING,
    }
    return Job.model_validate({**facts, **changes})


def a_spec(folder: Path, *command: str, **changes: object) -> JobSpec:
    """Return the spec of a plain run in a folder."""
    facts: dict[str, object] = {
        "run_id": folder.name,
        "token": TOKEN,
        "kind": "run",
        "folder": folder,
        "command": command or ("true",),
        "workdir": folder.parent,
        "resources": Resources(),
        "environment": Environment(),
    }
    return JobSpec.model_validate({**facts, **changes})


def settings_in(folder: Path, *, scheduler: str = "local", **environ: str) -> Settings:
    """Return the settings of a user whose every place lies in a folder, on the site `local` or on Slurm."""
    site = "local" if scheduler == "local" else "generic"
    places = {f"DEEPHPC_{name}_DIR": str(folder / name.lower()) for name in ("WORK", "CACHE", "STATE")}
    return load_settings(site=site, environ={**places, **environ}, home=folder, has_slurm=scheduler == "slurm")


#: A tenth of the profile's cases, for properties whose every case is costly.
A_TENTH = hypothesis.settings(max_examples=max(100, hypothesis.settings.default.max_examples // 10))
