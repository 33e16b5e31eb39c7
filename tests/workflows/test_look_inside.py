"""What a look into an image tells of a program, and that no answer is no word about it."""

from pathlib import Path

import pytest

import deephpc.workflows.look_inside as look_inside
from deephpc.workflows.look_inside import has_program
from tests.workflows.test_module_use import container_in, desk_in

#: Apptainer without an image: the look around, and then the words themselves.
ENGINE = """#!/bin/bash
while [ "$1" != /bin/sh ]; do shift; done
case $3 in prepare) echo seen; exit ;; esac
{said}
shift 3
exec "$@"
"""


@pytest.mark.parametrize(
    ("said", "name", "found"),
    [
        ("", "sh", True),
        ("", "a program that nobody has", False),
        ("", "/no/such/'program'", False),
        ("echo 'a profile of the image says hello'", "jupyter-that-nobody-has", False),
        ("exit 255", "sh", None),
        ("exit 0", "sh", None),
        ("sleep 600", "sh", None),
    ],
)
def test_only_an_answer_tells_of_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, name: str, found: bool | None
) -> None:
    desk = desk_in(tmp_path, [])
    (tmp_path / "image.sif").touch()
    engine = tmp_path / "engine"
    engine.write_text(ENGINE.format(said=said))
    engine.chmod(0o755)
    if said.startswith("sleep"):
        monkeypatch.setattr(look_inside, "_PROGRAM_S", 1.0)
    container = container_in(tmp_path, desk.settings.cache_dir).model_copy(
        update={"engine_command": str(engine), "is_module": False}
    )
    assert has_program(container, desk, name) is found


def test_where_nothing_may_be_written_nothing_is_told(tmp_path: Path) -> None:
    desk = desk_in(tmp_path, [])
    (tmp_path / "image.sif").touch()
    container = container_in(tmp_path, desk.settings.cache_dir)
    (tmp_path / "cache-file").touch()
    settings = desk.settings.model_copy(update={"cache_dir": tmp_path / "cache-file" / "below"})
    assert (
        has_program(container, type(desk)(settings, desk.places, desk.module_image, desk.clock, desk.tell), "sh")
        is None
    )
