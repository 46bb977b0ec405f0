"""The reader of event streams that other tests rely on, by the WHATWG's rules."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from tests.support.sse import Event, EventStreamParser, parse


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [Event("a")]),
        (b"data:a\n\n", [Event("a")]),
        (b"data:  a\n\n", [Event(" a")]),
        (b"data: a\r\n\r\n", [Event("a")]),
        (b"data: a\r\r", [Event("a")]),
        (b"data: a\r\rdata: b\n\ndata: c\r\n\r\n", [Event("a"), Event("b"), Event("c")]),
        (b"data: a\ndata:\ndata: b\n\n", [Event("a\n\nb")]),
        (b"event: named\ndata: a\n\ndata: b\n\n", [Event("a", "named"), Event("b")]),
        (b"data: a\nevent: named\n\n", [Event("a", "named")]),
        (b"event: first\nevent: second\ndata: a\n\n", [Event("a", "second")]),
        (b'data: {"a": "b: c"}\n\n', [Event('{"a": "b: c"}')]),
        (b"data\n\n", [Event("")]),
        (b"data:\ndata\n\n", [Event("\n")]),
        (b"unknown: x\ndata: a\n\n", [Event("a")]),
        (b" data: a\ndata: b\n\n", [Event("b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data: \xef\xbb\xbfa\n\n", [Event("\ufeffa")]),
        ("data: ü 🙂 \u2028 \x85 end\n\n".encode(), [Event("ü 🙂 \u2028 \x85 end")]),
        (b"data: \xff\n\n", [Event("\ufffd")]),
    ],
)
def test_events_are_read_as_a_browser_reads_them(stream: bytes, events: list[Event]) -> None:
    """It accepts all three line ends, an optional blank, and names for one event only."""
    assert parse(stream) == events


@pytest.mark.parametrize("stream", [b"event: named\n\n", b"id: 1\n\n", b": comment\n\n", b"\n\n\n"])
def test_a_block_without_data_is_no_event(stream: bytes) -> None:
    """Its name does not apply to the next event."""
    (event,) = parse(stream + b"data: next\n\n")
    assert (event.data, event.name) == ("next", "message")


@pytest.mark.parametrize("stream", [b"data: a", b"data: a\n", b"data: a\r\n"])
def test_an_incomplete_event_is_dropped(stream: bytes) -> None:
    """Only the empty line completes it."""
    assert parse(stream) == []


def test_an_id_applies_until_the_next_one() -> None:
    """An id with NUL is ignored."""
    events = parse(b"id: 1\ndata: a\n\ndata: b\n\nid: x\0\ndata: c\n\nid\ndata: d\n\n")
    assert [event.last_id for event in events] == ["1", "1", "1", ""]


def test_comments_and_retry_make_no_event() -> None:
    """A retry time consists of ASCII digits only."""
    parser = EventStreamParser()
    assert parser.feed(": one\n:two\nretry: 250\nretry: 2x\nretry: \u0663\n\n".encode()) == []
    assert parser.comments == ["one", "two"]
    assert parser.retry_ms == 250


def test_any_split_of_the_bytes_gives_the_same_events() -> None:
    """It may be within a character, between CR and LF, or within the byte order mark."""
    stream = "\ufeffid: 7\r\nevent: ü\r\ndata: a🙂\r\n: c\r\n\r\ndata: b\rdata:c\r\r\n\ndata: d\n\n".encode()
    whole = parse(stream)
    assert whole == [Event("a🙂", "ü", "7"), Event("b\nc", last_id="7"), Event("d", last_id="7")]

    def parse_parts(*cuts: int) -> list[Event]:
        parser = EventStreamParser()
        bounds = [0, *cuts, len(stream)]
        return [event for start, end in pairwise(bounds) for event in parser.feed(stream[start:end])]

    assert parse_parts(*range(1, len(stream))) == whole
    for cuts in combinations(range(1, len(stream)), 2):
        assert parse_parts(*cuts) == whole
