"""Reads the samples that a job takes of what it uses (`usage.jsonl`)."""

import contextlib
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from deephpc.jobs.run_folder import read_json_lines
from deephpc.model import Model


class GpuSample(Model):
    """One GPU in one sample."""

    index: int
    utilization_percent: float
    memory_mib: float


class Sample(Model):
    """One line of `usage.jsonl`, as jobscripts/sample_usage.py writes it."""

    at: datetime
    cpu_s: float
    """CPU seconds of the program and its children so far."""
    rss_mib: float
    processes: int
    gpus: tuple[GpuSample, ...] = ()


def load_samples(path: Path) -> list[Sample]:
    """Read `usage.jsonl`; lines that are none of the sampler's are passed over."""
    samples = []
    for line in read_json_lines(path):
        with contextlib.suppress(ValidationError):
            samples.append(Sample.model_validate(line))
    return samples
