"""The two encoders of a streamed answer, for `/query/stream` and for OpenAI's chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from app.domain.answer import Completed, Event, Passage, Retrieved, Timings, Token, Usage
from app.domain.errors import ModelTimeout
from app.http.openai_completions import ChunkEncoder
from app.http.query_events import QueryEventEncoder
from app.http.sse import EventEncoder

PASSAGE = Passage(
    marker=1,
    document="policies/leave of absence.pdf",
    page=3,
    heading=None,
    text="It lasts 16 weeks.",
    score=0.5,
    chunk_id="c1",
)
TIMINGS = Timings(embed=1.0, retrieve=2.0, generate=3.0, total=6.5)
EVENTS: tuple[Event, ...] = (
    Retrieved([PASSAGE], "the-index"),
    Token("16 weeks "),
    Token("[1]"),
    Completed("16 weeks [1]", "a-model", Usage(8, 4), "length", TIMINGS),
)


def sent(encoder: EventEncoder) -> Iterator[tuple[str, Any]]:
    """The name and the data of each server-sent event that the encoder makes of `EVENTS`."""
    for event in EVENTS:
        for block in encoder.encode(event).decode().removesuffix("\n\n").split("\n\n"):
            *name, data = block.split("\n")
            yield "".join(name).removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_the_example_has_every_kind_of_event() -> None:
    """An added kind of event has to be added to the tests below."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))


def test_query_stream_names_its_events_and_ends_with_the_whole_answer() -> None:
    """It sends citations, tokens without a name, and an answer that repeats the citations."""
    citations, first, second, (name, answer) = sent(QueryEventEncoder())
    citation = {
        "marker": 1,
        "document": "policies/leave of absence.pdf",
        "page": 3,
        "heading": None,
        "text": "It lasts 16 weeks.",
        "score": 0.5,
        "chunk_id": "c1",
    }
    sources = ["policies/leave of absence.pdf"]
    assert citations == (
        "citations",
        {"citations": [citation], "sources": sources, "index": "the-index"},
    )
    assert [first, second] == [("", {"token": "16 weeks "}), ("", {"token": "[1]"})]
    assert (name, answer) == (
        "answer",
        {
            "answer": "16 weeks [1]",
            "status": "answered",
            "sources": sources,
            "citations": [citation],
            "model": "a-model",
            "index": "the-index",
            "usage": {"prompt_tokens": 8, "completion_tokens": 4},
            "timings_ms": {"embed": 1.0, "retrieve": 2.0, "generate": 3.0, "total": 6.5},
        },
    )


@pytest.mark.parametrize("includes_usage", [False, True])
def test_chunks_carry_the_tokens_and_end_with_the_finish_reason(includes_usage: bool) -> None:
    """All have the same id; citations come with the first, annotations with the last, usage after that."""
    chunks = [chunk for _, chunk in sent(ChunkEncoder(includes_usage=includes_usage))]
    assert len({chunk["id"] for chunk in chunks}) == 1
    if includes_usage:
        total = chunks.pop()
        assert total["choices"] == []
        assert total["usage"] == {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
    assert all(("usage" in chunk) == includes_usage for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"].get("content") for choice in choices] == ["", "16 weeks ", "[1]", None]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert [each["chunk_id"] for each in chunks[0]["citations"]] == ["c1"]
    (annotation,) = choices[-1]["delta"]["annotations"]
    assert annotation["url_citation"] == {
        "start_index": 9,
        "end_index": 12,
        "title": "policies/leave of absence.pdf",
        "url": "policies/leave%20of%20absence.pdf#page=3",
    }


@pytest.mark.parametrize("encoder", [QueryEventEncoder(), ChunkEncoder(includes_usage=False)])
def test_an_error_is_one_event(encoder: EventEncoder) -> None:
    """In either encoding, it has the error's code and detail."""
    encoded = encoder.encode_error(ModelTimeout("the language model was too slow"))
    assert encoded.endswith(b"\n\n")
    assert encoded.count(b"\n\n") == 1
    assert b"model_timeout" in encoded
    assert b"the language model was too slow" in encoded
