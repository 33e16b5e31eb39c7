"""Layers become a folder: what is in it, and what never happens outside."""

import os
import stat
import tarfile
from pathlib import Path

import pytest

from deephpc.containers.tree import remove_tree, unpack
from deephpc.errors import EngineError
from tests.containers.trees import file, folder, hard_link, link, other, store_image


def listing(root: Path) -> dict[str, str]:
    """Everything under a folder: files with content, links with target, folders."""
    found = {}
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place) / name
            relative = str(path.relative_to(root))
            if path.is_symlink():
                found[relative] = f"-> {path.readlink()}"
            elif path.is_dir():
                found[relative] = "/"
            else:
                found[relative] = path.read_text() if path.is_file() else "special"
    return found


def unpacked(
    tmp_path: Path, *layers: list[tuple[tarfile.TarInfo, bytes]], relative_links: bool = False
) -> dict[str, str]:
    unpack(store_image(tmp_path / "store", *layers), tmp_path / "root", relative_links=relative_links)
    return listing(tmp_path / "root")


def test_layers_lie_over_each_other(tmp_path: Path) -> None:
    lower = [folder("etc"), file("etc/a", b"old"), file("etc/b", b"kept"), link("bin", "usr/bin"), folder("usr/bin")]
    upper = [file("etc/a", b"new"), file("bin/tool", b"1"), file("deep/er/x", b"2"), hard_link("y", "deep/er/x")]
    assert unpacked(tmp_path, lower, upper) == {
        "etc": "/", "etc/a": "new", "etc/b": "kept", "bin": "-> usr/bin", "usr": "/", "usr/bin": "/",
        "usr/bin/tool": "1", "deep": "/", "deep/er": "/", "deep/er/x": "2", "y": "2",
    }  # fmt: skip


def test_whiteouts_remove_what_lower_layers_brought_and_nothing_else(tmp_path: Path) -> None:
    lower = [file("top"), file("a/x"), file("a/y"), file("b/x"), file("b/sub/x"), file("c/x"), file("keep")]
    upper = [
        file(".wh.top"),
        file("a/.wh.x"),
        file("b/new", b"n"),
        file("b/sub/new", b"n"),
        file("b/.wh..wh..opq"),
        file(".wh.c"),
        file("d/z"),
        file("d/.wh.z"),
        file("missing/.wh.z"),
    ]
    assert unpacked(tmp_path, lower, upper) == {
        "a": "/", "a/y": "", "b": "/", "b/new": "n", "b/sub": "/", "b/sub/new": "n", "keep": "", "d": "/", "d/z": "",
        "missing": "/",
    }  # fmt: skip


def test_a_member_of_another_kind_takes_the_place(tmp_path: Path) -> None:
    lower = [file("a/x"), file("b"), link("c", "a"), file("d/x")]
    upper = [file("a", b"file"), folder("b"), file("b/x"), folder("c"), file("c/y"), link("d", "b")]
    assert unpacked(tmp_path, lower, upper) == {
        "a": "file", "b": "/", "b/x": "", "c": "/", "c/y": "", "d": "-> b",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../../..{outside}", "mid"])
def test_no_link_of_a_lower_layer_leads_a_write_outside(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    way = target.format(outside=outside)
    lower = [link("x", way), link("mid", str(outside))]
    upper = [file("x/evil", b"1"), folder("x/dir"), link("x/l", "y"), file("x/.wh.gone"), hard_link("x/hard", "x/evil")]
    (outside / "gone").write_text("kept")
    found = unpacked(tmp_path, lower, upper)
    assert listing(outside) == {"gone": "kept"}
    assert found[f"{outside.relative_to('/')}/evil"] == "1"


def test_no_hard_link_takes_a_file_from_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(EngineError, match="is no file"):
        unpacked(tmp_path, [link("way", str(tmp_path))], [hard_link("a", "way/secret")])
    assert secret.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([file("../evil", b"1")], "outside the image"),
        ([file("a/../../evil", b"1")], "outside the image"),
        ([hard_link("a", "../../etc/passwd")], "outside the image"),
        ([link("a", "b"), link("b", "a"), file("a/x")], "circle of links"),
        ([file("a"), file("a/x")], "a file and a folder"),
        ([folder("a"), hard_link("b", "a")], "is no file"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        unpacked(tmp_path, members)
    assert not (tmp_path / "evil").exists()


def test_absolute_names_count_from_the_root_of_the_image(tmp_path: Path) -> None:
    assert unpacked(tmp_path, [file("/etc/passwd", b"root")]) == {"etc": "/", "etc/passwd": "root"}


def test_devices_are_left_out_and_nobody_gains_or_writes(tmp_path: Path) -> None:
    members = [
        other("dev/null", tarfile.CHRTYPE),
        other("dev/sda", tarfile.BLKTYPE),
        other("pipe", tarfile.FIFOTYPE),
        file("su", mode=0o4755),
        file("secret", mode=0o600),
        file("mute", mode=0o000),
        folder("sticky", mode=0o1777),
        folder("shut", mode=0o000),
        file("shut/x"),
    ]
    found = unpacked(tmp_path, members)
    assert set(found) == {"dev", "pipe", "su", "secret", "mute", "sticky", "shut", "shut/x"}
    modes = {name: stat.S_IMODE((tmp_path / "root" / name).lstat().st_mode) for name in found}
    assert modes == {
        "dev": 0o555, "pipe": 0o555, "su": 0o555, "secret": 0o444, "mute": 0o444, "sticky": 0o555, "shut": 0o555,
        "shut/x": 0o444,
    }  # fmt: skip
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o555


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([[other("zero", tarfile.CHRTYPE), hard_link("nought", "zero")], [file("a")]], {"a": ""}),
        ([[other("a", tarfile.BLKTYPE)], [hard_link("b", "a"), hard_link("c", "b")]], {}),
        ([[other("a", tarfile.CHRTYPE), file("a", b"1"), hard_link("b", "a")]], {"a": "1", "b": "1"}),
        (
            [[link("dev", "real"), other("dev/x", tarfile.CHRTYPE)], [hard_link("y", "real/x")]],
            {"dev": "-> real", "real": "/"},
        ),
    ],
)
def test_a_further_name_of_what_was_left_out_is_left_out(
    tmp_path: Path, layers: list[list[tuple[tarfile.TarInfo, bytes]]], found: dict[str, str]
) -> None:
    assert unpacked(tmp_path, *layers) == found


@pytest.mark.parametrize("layers", ["-a", "a-", "a--b-"])
def test_an_empty_layer_adds_nothing(tmp_path: Path, layers: str) -> None:
    found = unpacked(tmp_path, *([] if name == "-" else [file(name)] for name in layers))
    assert set(found) == set(layers) - {"-"}


def test_files_keep_their_times_also_impossible_ones(tmp_path: Path) -> None:
    unpacked(tmp_path, [file("a.py", mtime=1_234_567_890), file("b", mtime=-5), file("c", mtime=2**62)])
    times = [int((tmp_path / "root" / name).stat().st_mtime) for name in ("a.py", "b", "c")]
    assert times == [1_234_567_890, 0, 0]


def test_links_can_be_made_to_work_under_any_root(tmp_path: Path) -> None:
    members = [
        file("usr/bin/mawk", b"m"),
        link("etc/alternatives/awk", "/usr/bin/mawk"),
        link("r", "/"),
        link("p", "/proc/self"),
    ]
    found = unpacked(tmp_path, members, relative_links=True)
    assert {name: found[name] for name in ("etc/alternatives/awk", "r", "p")} == {
        "etc/alternatives/awk": "-> ../../usr/bin/mawk", "r": "-> .", "p": "-> /proc/self",
    }  # fmt: skip
    assert (tmp_path / "root/etc/alternatives/awk").read_text() == "m"


def test_names_of_any_bytes_are_taken(tmp_path: Path) -> None:
    odd = b"\xff\xfe ".decode("utf-8", "surrogateescape")
    assert set(unpacked(tmp_path, [file(odd), file("ψηφία\n"), file("-rf")])) == {odd, "ψηφία\n", "-rf"}


def test_a_tree_nobody_may_write_can_be_removed(tmp_path: Path) -> None:
    unpacked(tmp_path, [file("a/b/c"), link("a/out", str(tmp_path / "store"))])
    remove_tree(tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert (tmp_path / "store").is_dir()
