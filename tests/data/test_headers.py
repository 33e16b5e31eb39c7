"""Whatever a server writes where a number should stand is read, or is none; it never ends a command."""

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.data.answer import Answer
from deephpc.data.header import parse_number
from deephpc.data.refusal import _retry_after
from deephpc.data.storage import Entry, Interrupted
from deephpc.data.web import _check_answer, _part_of, entry_of
from deephpc.data.webdav_listing import parse_listing

ODD = ["", "²", "-1", "+1", "1.5", "0x10", "٣", "9" * 5000, "*", "None"]


def answer(status: int, **headers: str) -> Answer:
    """An answer of a server with these headers."""
    found = Answer(_Wire())
    found.status, found.headers = status, http.client.HTTPMessage()
    for name, value in headers.items():
        found.headers[name.replace("_", "-")] = value
    return found


class _Wire:
    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO()


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_number_is_none(text: str):
    assert parse_number(text) is None
    assert entry_of(answer(200, content_length=text)).size_bytes is None


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize("text", ODD)
def test_a_range_that_cannot_be_read_is_a_whole_file_or_a_broken_answer(status: int, text: str):
    part = _part_of(answer(status, content_length="10", content_range=f"bytes {text}-{text}/{text}"))
    assert (part is None) is (status == 200)
    if part is not None:
        with pytest.raises(Interrupted, match="another range"):
            _check_answer(answer(status), part, Entry("x", size_bytes=100), 0, "x")


@pytest.mark.parametrize(
    ("said", "length", "is_part"),
    [
        ("bytes 10-19/100", "10", True),
        ("bytes 10-19/100", "100", False),  # the whole file came after all
        ("bytes 0-99/100", "100", False),
        ("bytes 10-19/*", "10", False),
        ("items 10-19/100", "10", False),
    ],
)
def test_status_200_is_a_part_only_where_all_that_it_says_agrees(said: str, length: str, is_part: bool):
    assert (_part_of(answer(200, content_length=length, content_range=said)) is not None) is is_part


@given(st.text(max_size=100))
def test_any_text_is_seconds_to_wait_or_none(text: str):
    seconds = _retry_after(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("text", ODD)
def test_a_webdav_server_that_tells_no_size_has_told_none(text: str):
    listed = (
        '<d:multistatus xmlns:d="DAV:"><d:response><d:href>/f</d:href><d:propstat><d:prop>'
        f"<d:getcontentlength>{text}</d:getcontentlength></d:prop></d:propstat></d:response></d:multistatus>"
    )
    (entry,) = parse_listing(listed.encode(), "http://x/", "x")
    assert entry.size_bytes is None
