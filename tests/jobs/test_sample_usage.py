"""The sampler that runs beside the program on the node."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.fakes.waiting import DEADLINE_S, wait_until

SAMPLER = shipped("jobscripts") / "sample_usage.py"


def test_it_is_python_3_6_and_needs_the_standard_library_alone():
    tree = ast.parse(SAMPLER.read_text(), feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported <= set(sys.stdlib_module_names)
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_it_ends_when_the_program_is_gone(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, SAMPLER, "999999999", tmp_path / "usage.jsonl"], timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0
    assert not (tmp_path / "usage.jsonl").exists()


@pytest.mark.slow
def test_it_counts_the_program_and_its_children_and_their_gpus(tmp_path: Path):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho '0, 97, 1024'\necho '1, [N/A], 5'\necho 'No devices'\n")
    fake.chmod(0o755)
    begins = ["bash", "-c", "sleep 600 & sleep 600 & echo begun; wait"]
    program = subprocess.Popen(begins, start_new_session=True, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"begun\n"
    usage = tmp_path / "usage.jsonl"
    environ = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    sampler = subprocess.Popen([sys.executable, SAMPLER, str(program.pid), usage], env=environ)
    try:
        wait_until(lambda: usage.exists() and usage.read_text().endswith("\n"))
    finally:
        sampler.terminate()
        os.killpg(program.pid, 9)
        sampler.wait(DEADLINE_S)
        program.communicate(timeout=DEADLINE_S)
    first = json.loads(usage.read_text().splitlines()[0])
    assert first["processes"] == 3
    assert first["rss_mib"] > 0
    assert first["gpus"] == [{"index": 0, "utilization_percent": 97, "memory_mib": 1024}]
