"""`--input NAME=…` as inputs: ordered, each once, with keys that stay."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError
from deephpc.serve.module_description import Argument
from deephpc.workflows.batch_inputs import BatchInput, check_inputs, input_key, load_inputs
from tests.fakes.samples import A_TENTH

DECLARED = (Argument(name="image", type="file"), Argument(name="mask", type="file"), Argument(name="text"))


def files(folder: Path, *names: str) -> list[str]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return [str(folder / name) for name in names]


def values(inputs: tuple[BatchInput, ...], name: str = "image") -> list[str]:
    return [each.args[name] for each in inputs]


def refused(*options: str, cwd: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_inputs(options, DECLARED, cwd)
    assert caught.value.hint
    return caught.value


def test_a_pattern_names_its_files_in_order(tmp_path: Path) -> None:
    b, a, _ = files(tmp_path, "b.png", "a.png", "c.txt")
    (tmp_path / "folder.png").mkdir()
    assert values(load_inputs(["image=*.png"], DECLARED, tmp_path)) == [a, b]


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    found = files(tmp_path, "data/1.png", "data/2.png")
    files(tmp_path, "data/.hidden", "data/deeper/3.png")
    assert values(load_inputs(["image=data"], DECLARED, tmp_path)) == found
    assert len(load_inputs(["image=data/**"], DECLARED, tmp_path)) == 3


def test_a_list_names_files_or_values(tmp_path: Path) -> None:
    b, a = files(tmp_path, "b.png", "a.png")
    (tmp_path / "list.txt").write_text("b.png\r\n\na.png\n")
    assert values(load_inputs(["image=@list.txt"], DECLARED, tmp_path)) == [b, a]
    (tmp_path / "texts").write_text("two words\nb.png\n")
    assert values(load_inputs(["text=@texts"], DECLARED, tmp_path), "text") == ["two words", "b.png"]
    (tmp_path / "nul").write_bytes(b"a.png\0b.png\0")
    assert values(load_inputs(["image=@nul"], DECLARED, tmp_path)) == [a, b]


def test_inputs_named_twice_are_predicted_once(tmp_path: Path) -> None:
    b, a = files(tmp_path, "b.png", "a.png")
    inputs = load_inputs(["image=b.png", "image=*.png", f"image={tmp_path}/./x/../b.png"], DECLARED, tmp_path)
    assert values(inputs) == [b, a]


@pytest.mark.parametrize(
    "name", ["mit Leer zeichen.png", "größe-日本.png", "new\nline.png", "[1]*.png", "-x.png", "a=b.png"]
)
def test_hostile_names_come_through(tmp_path: Path, name: str) -> None:
    (path,) = files(tmp_path, name)
    assert values(load_inputs([f"image={name}"], DECLARED, tmp_path)) == [path]
    (found,) = load_inputs(["image=*"], DECLARED, tmp_path)
    assert found.args == {"image": path}
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", found.key)


def test_the_folder_one_is_in_may_look_like_a_pattern(tmp_path: Path) -> None:
    here = tmp_path / "run[1]*"
    (path,) = files(here, "a.png")
    assert values(load_inputs(["image=*.png"], DECLARED, here)) == [path]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png")).write_text("x")
    assert "not valid UTF-8" in refused("image=*.png", cwd=tmp_path).message


def test_names_are_the_modules(tmp_path: Path) -> None:
    files(tmp_path, "a.png")
    error = refused("imgae=*.png", cwd=tmp_path)
    assert error.hint == "did you mean --input image?"
    assert values(load_inputs(["imgae=*.png"], None, tmp_path), "imgae")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("*.png", "is not NAME=FILES"),
        ("image=", "is not NAME=FILES"),
        ("image=*.tif", "'image=*.tif' meets no file"),
        ("image=empty", "meets no file"),
        ("image=nothing.png", "meets no file"),
        ("image=" + "x" * 5000, "meets no file"),
        ("image=~nosuchuser/x", "meets no file"),
        ("image=broken.png", "broken.png': it is not there"),
        ("image=@lost.txt", "lost.txt: No such file"),
        ("image=@none.txt", "none.txt is empty"),
        ("image=@odd.txt", "it is a folder"),
        ("image=@gone.txt", "gone.png': it is not there"),
    ],
)
def test_what_names_nothing_is_refused(tmp_path: Path, option: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "none.txt").write_text("\n\n")
    (tmp_path / "odd.txt").write_text("empty\n")
    (tmp_path / "gone.txt").write_text("gone.png\n")
    assert message in refused(option, cwd=tmp_path).message


@pytest.mark.parametrize("option", ["image", "=a.png", "image=*.tif", "image=@lost.txt", "image=@none.txt"])
def test_what_needs_no_module_to_be_wrong_is_refused_before_there_is_one(tmp_path: Path, option: str) -> None:
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(InputError):
        check_inputs([option], tmp_path)


def test_a_list_may_hold_anything_before_the_module_is_known(tmp_path: Path) -> None:
    files(tmp_path, "a.png")
    (tmp_path / "words.txt").write_text("no file\n")
    check_inputs(["text=@words.txt", "image=*.png"], tmp_path)
    with pytest.raises(InputError, match="there is no input"):
        check_inputs([], tmp_path)


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    assert "there is no input" in refused(cwd=tmp_path).message


def test_files_of_several_names_belong_together_by_their_names(tmp_path: Path) -> None:
    files(tmp_path, "i/a.nii.gz", "i/b.png", "m/b.tif", "m/a.tif")
    rows = [dict(each.args) for each in load_inputs(["image=i", "mask=m"], DECLARED, tmp_path)]
    assert rows == [
        {"image": f"{tmp_path}/i/a.nii.gz", "mask": f"{tmp_path}/m/a.tif"},
        {"image": f"{tmp_path}/i/b.png", "mask": f"{tmp_path}/m/b.tif"},
    ]


def test_files_without_a_partner_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "i/a.png", "i/b.png", "m/b.tif", "n/b.png", "n/b.jpg")
    error = refused("image=i", "mask=m", cwd=tmp_path)
    assert error.message == "image has 'a', and mask has no file of that name (1 without a partner)"
    assert "'b' more than once" in refused("mask=m", "image=n", cwd=tmp_path).message


def test_lines_of_several_lists_belong_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\ny\nx\n")
    (tmp_path / "b").write_text("1\n1\n2\n")
    declared = (Argument(name="text"), Argument(name="note"))
    rows = [dict(each.args) for each in load_inputs(["text=@a", "note=@b"], declared, tmp_path)]
    assert rows == [{"text": "x", "note": "1"}, {"text": "y", "note": "1"}, {"text": "x", "note": "2"}]
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(InputError, match="has 3 lines, that of note 2"):
        load_inputs(["text=@a", "note=@b"], declared, tmp_path)


@pytest.mark.parametrize("address", ["https://example.org/a.png", "s3://bucket/a.png", "SFTP://host/a.png"])
def test_an_address_is_no_file_and_is_refused_with_what_brings_it(tmp_path: Path, address: str) -> None:
    (tmp_path / "list").write_text(f"{address}\n")
    for option in (f"image={address}", "image=@list"):
        assert f"deephpc data get {address}" in (refused(option, cwd=tmp_path).hint or "")
    (tmp_path / "list").write_text(f"{address}\n")
    [one] = load_inputs(["text=@list"], (Argument(name="text"),), tmp_path)
    assert one.args == {"text": address}


@pytest.mark.parametrize(
    "options",
    [
        ("image=a.png", "audio=b.wav"),
        ("image=a.png", "audio=b.wav", "mask=m/c.tif"),
        ("image=a.png", "text=@line"),
        ("image=*.png", "audio=*.wav"),
        ("mask=m", "text=@line", "image=*.png"),
    ],
)
def test_one_value_for_each_of_several_names_is_one_input(tmp_path: Path, options: tuple[str, ...]) -> None:
    image, audio, mask = files(tmp_path, "a.png", "b.wav", "m/c.tif")
    (tmp_path / "line").write_text("two words\n")
    meant = {"image": image, "audio": audio, "mask": mask, "text": "two words"}
    [one] = load_inputs(options, (*DECLARED, Argument(name="audio", type="file")), tmp_path)
    assert one.args == {name: meant[name] for name in (option.partition("=")[0] for option in options)}


def test_one_value_beside_many_is_for_all_of_them(tmp_path: Path) -> None:
    files(tmp_path, "i/a.png", "i/b.png", "m/a.tif", "m/b.tif", "weights.h5")
    declared = tuple(Argument(name=name, type="file") for name in ("image", "mask", "weights"))
    rows = [dict(one.args) for one in load_inputs(["weights=weights.h5", "image=i", "mask=m"], declared, tmp_path)]
    assert [list(row) for row in rows] == [["weights", "image", "mask"]] * 2
    assert {row["weights"] for row in rows} == {f"{tmp_path}/weights.h5"}
    assert [Path(row["mask"]).name for row in rows] == ["a.tif", "b.tif"]
    files(tmp_path, "one/a.tif")  # a folder with one file in it was not named for all
    assert "without a partner" in refused("image=i", "mask=one", cwd=tmp_path).message


@A_TENTH
@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1))
def test_keys_follow_from_the_values_alone_and_name_files(args: dict[str, str]) -> None:
    key = input_key(args)
    assert key == input_key(dict(reversed(args.items())))
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", key)
    assert len(key) <= 60
    assert key != input_key({**args, "another": "value"}) or "another" in args


def test_a_lone_file_that_is_not_there_needs_no_lesson_in_patterns(tmp_path: Path) -> None:
    assert refused("image=nothing.png", cwd=tmp_path).hint == "there is no nothing.png here"
    assert "data/*.png" in refused("image=*.png", cwd=tmp_path).hint
