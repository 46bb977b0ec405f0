"""POST /query/stream: its bytes, its events and their order, for any client."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import takewhile
from typing import Any

import httpx
import pytest

from app.bootstrap.timing import Timing
from app.config.settings import Settings
from app.http.sse import StreamTimes
from app.main import create_app
from tests.fake_provider import FakeProvider, faults
from tests.support import reference_service
from tests.support.raw_http import RawExchange
from tests.support.serving import serve_in_thread, wait_for
from tests.support.sse import Event, parse
from tests.support.stream_protocol import PROBLEM_FIELDS, answered, check, failed, token_of

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How long is parental leave?"}
CITATIONS = Event('{"citations": [], "sources": [], "index": "1"}', "citations")
TOKEN = Event('{"token": "a"}')
ANSWER = Event(
    json.dumps(
        {
            **{"answer": "a", "status": "no_context", "sources": [], "citations": [], "model": "m"},
            **{"index": "1", "usage": None},
            "timings_ms": {"embed": 1.0, "retrieve": 1.0, "generate": 1.0, "total": 3.0},
        }
    ),
    "answer",
)
DONE = Event("[DONE]")
ERROR = Event(
    json.dumps(
        {"type": "urn:x:c", "title": "t", "status": 502, "code": "c", "detail": "d", "request_id": "1"}
    ),
    "error",
)


@pytest.fixture(scope="session")
def _reference() -> Iterator[str]:
    with serve_in_thread(reference_service.app) as url:
        yield url


@pytest.fixture(params=["_reference", "sample_url", "postgres_url", "openai_url"])
def base_url(request: pytest.FixtureRequest) -> str:
    """Whoever speaks the protocol: the smallest service that does, and ours at its levels."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def postgres_url(sample_in_postgres: httpx.Client) -> str:
    return str(sample_in_postgres.base_url).rstrip("/")


@pytest.fixture
def sample_url(sample_on_disk: httpx.Client) -> str:
    return str(sample_on_disk.base_url).rstrip("/")


@pytest.fixture(scope="module")
def _openai_server(_openai_index: Settings) -> Iterator[str]:
    with serve_in_thread(create_app(_openai_index)) as url:
        yield url


@pytest.fixture
def openai_url(_openai_server: str, provider: FakeProvider) -> str:
    """One server for all: no test here fails in a way that it would remember."""
    return _openai_server


class Steps:
    """Lets a provider go on piece by piece, when the test says so."""

    def __init__(self) -> None:
        self._steps: dict[int, Future[None]] = {}

    def step(self, number: int) -> Future[None]:
        return self._steps.setdefault(number, Future())

    async def wait(self, number: int) -> None:
        await asyncio.wrap_future(self.step(number))

    def go(self, number: int) -> None:
        self.step(number).set_result(None)


@pytest.fixture
def steps(provider: FakeProvider) -> Steps:
    steps = Steps()
    provider.chat.fault = faults.stepwise(steps.wait)
    return steps


def ask(url: str, body: Any = QUESTION, **options: Any) -> RawExchange:
    return RawExchange(url, body, **options).read_head()


def events_of(url: str, body: Any = QUESTION, **options: Any) -> list[Event]:
    with ask(url, body, **options) as stream:
        assert stream.status == 200, stream.read()
        return list(stream.events())


def problem_of(stream: RawExchange) -> dict[str, Any]:
    problem: dict[str, Any] = json.loads(stream.read())
    assert stream.headers["content-type"] == "application/problem+json"
    assert set(problem) >= PROBLEM_FIELDS
    assert problem["status"] == stream.status
    assert problem["request_id"] == stream.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(
    "events",
    [
        [],
        [CITATIONS],
        [CITATIONS, TOKEN],
        [CITATIONS, TOKEN, ANSWER],
        [CITATIONS, TOKEN, DONE],
        [CITATIONS, ANSWER, DONE],
        [CITATIONS, TOKEN, TOKEN, ANSWER, DONE],
        [TOKEN, CITATIONS, ANSWER, DONE],
        [TOKEN, ANSWER, DONE],
        [CITATIONS, CITATIONS, TOKEN, ANSWER, DONE],
        [CITATIONS, TOKEN, ANSWER, DONE, DONE],
        [CITATIONS, TOKEN, ANSWER, ERROR],
        [CITATIONS, TOKEN, ANSWER, DONE, ERROR],
        [CITATIONS, TOKEN, ERROR, DONE],
        [CITATIONS, TOKEN, ERROR, ERROR],
        [ERROR],
        [CITATIONS, Event('{"token": ""}'), TOKEN, ANSWER, DONE],
        [CITATIONS, Event('{"token": "a", "more": 1}'), ANSWER, DONE],
        [CITATIONS, TOKEN, Event("{}", "answer"), DONE],
        [CITATIONS, TOKEN, Event("{}", "error")],
        [CITATIONS, TOKEN, Event("x", "other"), ANSWER, DONE],
    ],
)
def test_the_checks_reject_a_broken_stream(events: list[Event]) -> None:
    """They notice anything missing, doubled, misplaced or malformed."""
    with pytest.raises((AssertionError, StopIteration, ValueError)):
        check(events)


def test_the_checks_accept_a_valid_stream() -> None:
    assert answered([CITATIONS, TOKEN, ANSWER, DONE]).tokens == ["a"]
    assert failed([CITATIONS, TOKEN, ERROR]).problem["code"] == "c"
    assert failed([CITATIONS, ERROR]).tokens == []


def test_the_headers_forbid_buffering_and_caching(base_url: str) -> None:
    """It is an event stream of unknown length."""
    with ask(base_url) as stream:
        assert stream.status_line == "HTTP/1.1 200 OK"
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] in {"no-cache", "no-store"}
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in stream.headers
        assert stream.headers["x-request-id"]
        stream.read()
        assert stream.ended


def test_events_come_in_the_documented_order(base_url: str) -> None:
    """They are citations, tokens, the answer and the end mark, and the joined tokens are the answer."""
    outcome = answered(events_of(base_url))
    assert outcome.answer["status"] == "answered"
    assert outcome.citations["citations"]
    assert outcome.tokens


def test_the_answer_equals_that_of_query(base_url: str) -> None:
    """Every field and value is the same, except the times."""
    streamed = answered(events_of(base_url)).answer
    plain = httpx.post(f"{base_url}/query", json=QUESTION, timeout=60).json()
    for answer in (streamed, plain):
        del answer["timings_ms"]
    assert streamed == plain


def test_both_names_of_a_field_are_equivalent(sample_url: str) -> None:
    """They are those of POST /query."""
    one = answered(events_of(sample_url, {"query": QUESTION["query"], "top_k": 2}))
    other = answered(events_of(sample_url, {"question": QUESTION["query"], "k": 2}))
    assert len(one.citations["citations"]) == 2
    assert one.tokens == other.tokens


def test_a_connection_can_be_used_again_after_a_stream(base_url: str) -> None:
    """The stream has an end of its own, which does not close the connection."""
    with ask(base_url) as first:
        answered(list(first.events()))
        assert first.ended
        answered(events_of(base_url, connection=first.connection))


def test_an_http_1_0_client_gets_the_same_events(base_url: str) -> None:
    """Its connection ends with the stream, whether or not uvicorn sends chunks."""
    with ask(base_url, version="1.0") as stream:
        assert stream.status == 200
        old = answered(list(stream.events()))
        assert stream.connection.recv(1) == b""
    assert old.answer["answer"] == answered(events_of(base_url)).answer["answer"]


def test_curl_shows_the_events(base_url: str) -> None:
    """It is the first thing that anybody tries."""
    answered(parse(curl(base_url).communicate(timeout=20)[0]))


def curl(url: str) -> subprocess.Popen[bytes]:
    command = shutil.which("curl")
    if command is None:
        pytest.skip("needs curl")
    content = ["-H", "Content-Type: application/json", "-d", json.dumps(QUESTION)]
    return subprocess.Popen([command, "-sN", *content, f"{url}/query/stream"], stdout=subprocess.PIPE)


def test_citations_are_sent_before_the_first_token(
    provider: FakeProvider, openai_url: str, steps: Steps
) -> None:
    """A client can show them while the model is working."""
    with ask(openai_url) as stream:
        events = stream.events()
        assert next(events).name == "citations"
        for number in range(10):
            steps.go(number)
        assert list(events)[-1] == DONE


def test_each_token_is_sent_when_it_arrives(provider: FakeProvider, openai_url: str, steps: Steps) -> None:
    """The model waits until each token has reached the client before it sends the next."""
    provider.pieces = ["It", " lasts", " sixteen", " weeks"]
    with ask(openai_url) as stream:
        events = stream.events()
        received = [next(events)]
        seen = ""
        for number, piece in enumerate(provider.pieces):
            steps.go(number)
            while len(seen) < len("".join(provider.pieces[: number + 1])):
                received.append(next(events))
                seen += token_of(received[-1])
            assert seen.endswith(piece)
        assert answered([*received, *events]).answer["answer"] == "It lasts sixteen weeks"


def test_curl_gets_each_token_when_it_arrives(provider: FakeProvider, openai_url: str, steps: Steps) -> None:
    """It is called with -N, as in the README."""
    provider.pieces = ["It", " lasts"]
    with curl(openai_url) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        for number, piece in enumerate(provider.pieces):
            steps.go(number)
            list(takewhile(lambda line, piece=piece: piece.encode() not in line, lines))  # type: ignore[misc]
        assert b"data: [DONE]\n" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize(
    "pieces",
    [
        ["line one\nline two\r\nline three\n"],
        ["data: [DONE]\n\nevent: error\n\n"],
        ["ü 🙂 ", "\u2028\u2029\x85", " 木", "\0\x1b"],
        [" ", "\n", "  blanks around  ", "\n", " "],
        ["a" * 100_000],
    ],
)
def test_any_text_is_sent_unchanged(provider: FakeProvider, openai_url: str, pieces: list[str]) -> None:
    """No text of a model can end an event, or look like one."""
    provider.pieces = pieces
    assert answered(events_of(openai_url)).answer["answer"] == "".join(pieces)


MARKED = "Six [0] teen[7] weeks [1], [1, 9][2,\t8] or [x] [ 1] [12] [99999] [1,  2,3] a[i][1] [7]. [1"


def test_split_markers_that_name_no_passage_are_removed(provider: FakeProvider, openai_url: str) -> None:
    """They may be split between any two characters."""
    provider.reply = MARKED
    whole = httpx.post(f"{openai_url}/query", json=QUESTION, timeout=60).json()["answer"]
    assert "[7]" not in whole
    assert "[1][2]" in whole

    in_two = [[MARKED[:cut], MARKED[cut:]] for cut in range(1, len(MARKED))]
    in_equal_parts = [
        [MARKED[start : start + size] for start in range(0, len(MARKED), size)] for size in (1, 2, 3, 5, 7)
    ]
    for pieces in [*in_equal_parts, *in_two]:
        provider.pieces = pieces
        assert answered(events_of(openai_url)).answer["answer"] == whole, pieces


@pytest.mark.parametrize("text", ["It is [", "It is [1", "It is [1,", "It is ", "It is [1, 2"])
def test_text_that_only_begins_like_a_marker_is_kept(
    provider: FakeProvider, openai_url: str, text: str
) -> None:
    """It is held back until it is clear that it is none."""
    provider.pieces = list(text)
    assert answered(events_of(openai_url)).answer["answer"] == text


@pytest.mark.parametrize(
    ("level", "query"),
    [("sample_url", "Who painted the ceiling of the Sistine Chapel?"), ("openai_url", "zzz qqq xxx")],
)
def test_an_irrelevant_question_gets_a_complete_stream(
    level: str, query: str, provider: FakeProvider, request: pytest.FixtureRequest
) -> None:
    """It has no citations, and the model is not asked."""
    outcome = answered(events_of(request.getfixturevalue(level), {"query": query}))

    assert outcome.answer["status"] == "no_context"
    assert outcome.citations["citations"] == outcome.citations["sources"] == []
    assert "nothing" in "".join(outcome.tokens)
    assert outcome.answer["usage"] is None
    assert provider.chat.requests == []


def test_comments_are_sent_while_the_model_is_silent(
    provider: FakeProvider, serve_openai_level: Callable[..., httpx.Client], steps: Steps
) -> None:
    """Proxies keep the connection open, and clients ignore the comments."""
    client = serve_openai_level(Timing(stream=StreamTimes(keepalive_s=0.05)))
    provider.pieces = ["It", " lasts"]
    with ask(str(client.base_url).rstrip("/")) as stream:
        parts = stream.parts()
        for number in range(2):
            silent_since = len(stream.parser.comments)
            while len(stream.parser.comments) < silent_since + 3:
                stream.parser.feed(next(parts))
            steps.go(number)
        for _ in parts:
            pass
    answered(parse(stream.body))


def test_no_comments_are_sent_between_frequent_tokens(base_url: str) -> None:
    """They are for silence only."""
    with ask(base_url) as stream:
        list(stream.events())
        assert stream.parser.comments == []


@pytest.mark.parametrize("body", [{}, {"query": ""}, {"query": None}])
def test_an_invalid_field_is_an_ordinary_error(base_url: str, body: dict[str, Any]) -> None:
    """Before the first event, the status can still be set."""
    with ask(base_url, body) as stream:
        problem = problem_of(stream)
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert "query" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "temperature": 1}, "temperature"),
        ({"query": "x", "filters": {"author": "me"}}, "filters.author"),
        ([], "body"),
    ],
)
def test_an_invalid_field_is_named(sample_url: str, body: Any, field: str) -> None:
    with ask(sample_url, body) as stream:
        problem = problem_of(stream)
    assert (problem["status"], problem["errors"][0]["field"]) == (422, field)


def test_a_body_that_is_too_large_is_an_ordinary_error(sample_url: str) -> None:
    with ask(sample_url, {"query": "a" * 1024 * 1024}) as stream:
        assert (problem_of(stream)["code"], stream.status) == ("body_too_large", 413)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_other_methods_are_refused(base_url: str, method: str) -> None:
    """A browser's own EventSource sends GET, and gets an error."""
    with ask(base_url, None, method=method) as stream:
        assert stream.status == 405
        assert stream.headers["allow"] == "POST"
        if method != "HEAD":
            assert problem_of(stream)["code"] == "method_not_allowed"


def test_without_an_index_it_is_an_ordinary_error(settings: MakeSettings, serve: Serve) -> None:
    client = serve(settings(), ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the index to be found empty")
    with ask(str(client.base_url)) as stream:
        assert (problem_of(stream)["code"], stream.status) == ("index_not_ready", 503)
        assert int(stream.headers["retry-after"]) >= 1


def test_a_failing_embedding_model_is_an_ordinary_error(provider: FakeProvider, openai_url: str) -> None:
    """No event has been sent by then."""
    provider.embeddings.fault = faults.status(400)
    with ask(openai_url, {"query": "Is a question that was never asked embedded?"}) as stream:
        assert (problem_of(stream)["code"], stream.status) == ("model_unavailable", 502)
    assert b"secret inner text" not in stream.body


def test_a_failing_language_model_is_an_error_event(provider: FakeProvider, openai_url: str) -> None:
    """The status has been sent, so the event has the same problem, with the request's id."""
    provider.chat.fault = faults.status(400)
    with ask(openai_url) as stream:
        assert stream.status == 200
        outcome = failed(list(stream.events()))
        assert stream.ended
    assert outcome.citations["citations"]
    assert (outcome.problem["status"], outcome.problem["code"]) == (502, "model_unavailable")
    assert outcome.problem["request_id"] == stream.headers["x-request-id"]
    assert b"secret inner text" not in stream.body


def test_concurrent_streams_do_not_mix(provider: FakeProvider, openai_url: str) -> None:
    """Each is complete, in whatever order the tokens arrive."""
    provider.reply = " ".join(f"word{number} [1]" for number in range(30))
    provider.token_s = 0.001
    streams = [ask(openai_url) for _ in range(20)]
    received: dict[int, list[Event]] = defaultdict(list)
    waiting = [(number, stream.events()) for number, stream in enumerate(streams)]
    while waiting:
        for number, events in list(waiting):
            if (event := next(events, None)) is None:
                waiting.remove((number, events))
            else:
                received[number].append(event)
    for stream in streams:
        stream.vanish()
    assert {answered(events).answer["answer"] for events in received.values()} == {provider.reply}
    assert len(received) == 20
