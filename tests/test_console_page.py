"""What a page shows of a terminal is read and compared as its readers would."""

from pathlib import Path

import pytest

from tests.console_page import commands_under, difference, learn_ids, load_page, rewritten, with_ids

PAGE = """\
# A page

```console
$ first \\
    --option
one line

another
$ second
```

    $ not.a command

```console
$ third
```
"""


def test_commands_come_in_their_order_with_what_they_print(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    found = [(each.command, each.output, each.line) for each in load_page(tmp_path / "page.md")]
    assert found == [
        ("first \\\n    --option", "one line\n\nanother\n", 4),
        ("second", "", 9),
        ("third", "", 15),
    ]


def test_a_block_that_begins_with_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```console\nlost\n$ a\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        load_page(tmp_path / "page.md")


@pytest.mark.parametrize(
    "shown, came",
    [
        ("pulled 3 of 17, 12.5 MiB\n", "pulled 11 of 200, 9 MiB\n"),
        ("2026-11-21 12:00:01 COMPLETED  c[1-2]\n", "2027-01-02 03:04:05  COMPLETED c[2-3]\n"),
        (f"sha256:{'a1' * 32}\n", f"sha256:{'0f' * 32}\n"),
        ("loss █▃▁  last 0.5\n", "loss ██▄▁▁ last 0.25\n"),
        ("a\n…\nz\n", "a\nb\nc\nz\n"),
        ("a\n…\n", "a\n"),
        ("the … fox\n", "the quick brown fox\n"),
        ("", ""),
    ],
)
def test_what_may_differ_does_not_count(shown: str, came: str) -> None:
    assert difference(shown, came) == ""


@pytest.mark.parametrize(
    "shown, came",
    [
        ("COMPLETED\n", "FAILED\n"),
        ("one\n", "one\ntwo\n"),
        ("one\ntwo\n", "one\n"),
        ("a\n…\nz\n", "a\nb\n"),
        ("digit 7.\n", "digit seven.\n"),
        ("", "something\n"),
        ("any.thing\n", "anything\n"),
        ("run-digits-7f3a\n", "run-digits-7f3b\n"),
    ],
)
def test_what_differs_is_shown_as_it_came(shown: str, came: str) -> None:
    assert difference(shown, came).endswith(f"as it came:\n{came}")


def test_ids_that_came_take_the_place_of_those_on_the_page() -> None:
    known: dict[str, str] = {}
    learn_ids("train-digits-7f3a\n", "note\ntrain-digits-0001\n", known)
    learn_ids("from train-digits-7f3a: serve-digits-91c2\n", "from train-digits-0001: serve-digits-abcd\n", known)
    assert with_ids("deephpc logs train-digits-7f3a; tunnel serve-digits-91c2", known) == (
        "deephpc logs train-digits-0001; tunnel serve-digits-abcd"
    )


def test_a_page_is_written_anew_with_what_came(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n```console\n$ a\nrun-x-aaaa 1\n$ b run-x-aaaa\nfirst 1\n…\nlast 1 …\n```\nrun-x-aaaa\n")
    first, second = load_page(page)
    came = [(first, "note\nrun-x-bbbb 2\n"), (second, "first 2\nmore\nlast 2 words\n")]
    assert rewritten(page.read_text(), came, {"run-x-aaaa": "run-x-bbbb"}) == (
        "# Page\n```console\n$ a\nnote\nrun-x-bbbb 2\n$ b run-x-bbbb\nfirst 2\n…\nlast 1 …\n```\nrun-x-bbbb\n"
    )


def test_commands_of_an_indented_block_come_without_prompt_and_comment(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "## One\n\n    $ a\n\n## Two\n\n    $ b '#1'   # why: RUN\nwords\n    c && d\n\n## Three\n\n    e\n"
    )
    assert commands_under("Two", page) == ["b '#1'", "c && d"]


@pytest.mark.parametrize("heading", ["None", "Empty"])
def test_a_heading_without_commands_is_refused(tmp_path: Path, heading: str) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n## Empty\n\nwords\n\n## Next\n\n    a\n")
    with pytest.raises(ValueError, match=f"no commands under the heading '{heading}'"):
        commands_under(heading, page)
