"""What layers may say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.layer_check import check_layers, member_path, removed_by
from deephpc.errors import EngineError
from tests.containers.trees import file, hard_link, link, store_image
from tests.fakes.samples import A_TENTH

_PARTS = st.lists(st.sampled_from(["", ".", "..", "a", "b", "…", "..."]), max_size=8)


@A_TENTH
@given(parts=_PARTS)
def test_a_member_lies_inside_or_is_refused(parts: list[str]) -> None:
    name, depth, escapes = "/".join(parts), 0, False
    for part in parts:
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        escapes = escapes or depth < 0
    if escapes:
        with pytest.raises(EngineError, match="outside"):
            member_path(name, "x")
    else:
        path = member_path(name, "x")
        assert len([part for part in path.split("/") if part]) == depth
        assert not path.startswith("/")


@pytest.mark.parametrize(
    ("path", "removed"),
    [
        ("etc/hosts", None),
        ("etc/.wh.hosts", "etc/hosts"),
        (".wh.hosts", "hosts"),
        ("etc/.wh..wh..opq", "etc/"),
        (".wh..wh..opq", "/"),
        (".wh..wh.plnk", ""),
        ("a.wh.b", None),
    ],
)
def test_whiteouts_say_what_they_remove(path: str, removed: str | None) -> None:
    assert removed_by(path, "x") == removed


@pytest.mark.parametrize("path", [".wh.", "etc/.wh...", "etc/.wh.."])
def test_a_whiteout_of_nothing_is_refused(path: str) -> None:
    with pytest.raises(EngineError, match="no name"):
        removed_by(path, "x")


def test_good_layers_pass_and_hostile_ones_do_not(tmp_path: Path) -> None:
    check_layers(store_image(tmp_path / "good", [file("/etc/a", b"1"), link("b", "/etc/a")], [file("etc/.wh.a")]))
    for number, member in enumerate((file("../a"), file("a/../../b"), hard_link("a", "../../etc/passwd"))):
        with pytest.raises(EngineError, match="outside the image"):
            check_layers(store_image(tmp_path / str(number), [file("fine"), member]))


def test_a_layer_that_is_another_than_the_configuration_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"the image says sha256:{'0' * 64}"):
        check_layers(store_image(tmp_path, [file("a")], diff_ids=[f"sha256:{'0' * 64}"]))


def test_a_configuration_with_fewer_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has 1 layers, its configuration speaks of 0"):
        check_layers(store_image(tmp_path, [file("a")], diff_ids=[]))


def test_a_layer_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    image = store_image(tmp_path, [file("a", b"x" * 5000)])
    image.layers[0].write_bytes(b"this is no archive" * 1000)
    with pytest.raises(EngineError, match="broken"):
        check_layers(image)
