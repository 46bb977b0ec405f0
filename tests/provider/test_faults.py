"""A model provider that fails in every way and at every stage: the client's response, and what remains.

After each test, the server has no more tasks, sockets and provider requests than before, and it answers the
next question, although it has only one slot.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app.bootstrap.timing import Timing
from app.config.settings import Settings
from app.http.sse import StreamTimes
from app.main import create_app
from app.provider.retry import RetryPolicy
from tests.conftest import build
from tests.fake_provider import Endpoint, Exchange, FakeProvider, Fault, event, faults, slow_faults
from tests.fake_provider.slow_faults import Slow, taking
from tests.support.serving import free_port
from tests.support.stream_protocol import Answered, Failed
from tests.support.watched import Outcome, WatchedService, serve_watched

UNAVAILABLE = (502, "model_unavailable")
TIMEOUT = (504, "model_timeout")

ROLE, FIRST_TOKEN = 1, 2  # how many events of a stream there are with each
PIECES = ["It", " lasts", " sixteen", " weeks [1]."]

# Further away than any test waits: the clock is moved.
DEADLINE_S, IDLE_S = 3000, 1000
LIMITS = {"request_timeout_s": DEADLINE_S, "stream_idle_timeout_s": IDLE_S}

# Hardly any pause between two tries, where the provider does not say how long: there are many of these tests.
TIMING = Timing(online=RetryPolicy(first_backoff_s=0.01))

GetService = Callable[..., WatchedService]


@dataclass(frozen=True)
class Stage:
    """A request to the provider that fails, and the route that is asked."""

    path: str
    fails: str

    def set_fault(self, provider: FakeProvider, fault: Fault) -> None:
        self.endpoint(provider).fault = fault

    def requests(self, provider: FakeProvider) -> list[Exchange]:
        return self.endpoint(provider).requests

    def endpoint(self, provider: FakeProvider) -> Endpoint:
        return provider.chat if self.fails == "chat" else provider.embeddings

    def check(self, outcome: Outcome, expected: tuple[int, str]) -> None:
        """Check the status and code, and that the error is an event only after the citations."""
        assert (outcome.status, outcome.code) == expected
        assert (outcome.events is not None) == (self == STREAM)


EMBEDDING = Stage("/query", "embedding")
STREAM_EMBEDDING = Stage("/query/stream", "embedding")
CHAT = Stage("/query", "chat")
STREAM = Stage("/query/stream", "chat")

STAGES = [
    pytest.param(EMBEDDING, id="embedding"),
    pytest.param(CHAT, id="chat"),
    pytest.param(STREAM, id="stream"),
]
ALL_STAGES = [*STAGES, pytest.param(STREAM_EMBEDDING, id="stream-embedding")]


@pytest.fixture
def service(watched_service: GetService, provider: FakeProvider) -> Iterator[GetService]:
    """A function that serves given settings; afterwards, nothing may be left behind."""
    used: list[WatchedService] = []

    def get(*, timing: Timing = TIMING, **values: Any) -> WatchedService:
        used.append(watched_service(timing=timing, **values))
        return used[-1]

    provider.pieces = PIECES
    yield get
    for each in used:
        each.check_nothing_is_left()


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_a_working_provider_is_called_once(provider: FakeProvider, service: GetService, stage: Stage) -> None:
    """One call is enough, and its answer reaches the client."""
    outcome = service().ask(stage.path)
    assert (outcome.status, outcome.code) == (200, "answered")
    assert len(stage.requests(provider)) == 1


PASSING = {
    **{str(status): faults.status(status, retry_after="0") for status in (429, 500, 502, 503, 504)},
    "429 since a date": faults.status(429, faults.http_date(-60)),
    "429 without a time": faults.status(429),
    "500 without end": faults.endless_error(500, faults.pour(b"a" * 65536)),
    "500 that hangs": faults.endless_error(500, faults.hang),
    "reset": faults.reset,
    "cut off": faults.cut,
}


@pytest.mark.parametrize("stage", ALL_STAGES)
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_transient_failure_is_a_502_after_three_attempts(
    provider: FakeProvider, service: GetService, stage: Stage, fault: Fault
) -> None:
    """Failures that may be transient are retried twice."""
    stage.set_fault(provider, fault)
    stage.check(service().ask(stage.path), UNAVAILABLE)
    assert len(stage.requests(provider)) == 3


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_failure_that_passes_is_hidden_from_the_client(
    provider: FakeProvider, service: GetService, stage: Stage, fault: str, times: int
) -> None:
    """The client gets its answer if a retry succeeds."""
    stage.set_fault(provider, faults.at_first(PASSING[fault], times))
    outcome = service().ask(stage.path)
    assert (outcome.status, outcome.code) == (200, "answered")
    assert len(stage.requests(provider)) == times + 1


LASTING = {
    **{str(status): faults.status(status) for status in (400, 401, 403, 404, 422)},
    "redirect": faults.redirect,
    "malformed": faults.body(faults.MALFORMED),
    "not UTF-8": faults.body(faults.NOT_UTF8),
    "null": faults.body(b"null"),
    "a list": faults.body(b"[]"),
    "empty object": faults.body(b"{}"),
    "no choices": faults.body(b'{"choices": 7, "data": 7}'),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_a_permanent_failure_is_not_retried(
    provider: FakeProvider, service: GetService, stage: Stage, fault: Fault
) -> None:
    """A wrong key, a wrong model or a malformed answer is a 502 at once, and no redirect gets our key."""
    stage.set_fault(provider, fault)
    stage.check(service().ask(stage.path), UNAVAILABLE)
    assert len(stage.requests(provider)) == 1
    assert "/elsewhere" not in {exchange.path for exchange in provider.exchanges}


BROKEN_OFF = {
    "reset in the body": faults.reset_in_body,
    "cut off in the body": faults.cut_in_body,
    "not gzip": faults.not_gzip,
    "empty": faults.body(b"", content_type="application/json"),
    "HTML": faults.body(b"<html>secret inner text</html>", content_type="text/html"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", BROKEN_OFF.values(), ids=BROKEN_OFF)
def test_a_truncated_or_unreadable_answer_is_a_502(
    provider: FakeProvider, service: GetService, stage: Stage, fault: Fault
) -> None:
    """An incomplete answer never reaches the client, retried or not."""
    stage.set_fault(provider, fault)
    stage.check(service().ask(stage.path), UNAVAILABLE)
    assert 1 <= len(stage.requests(provider)) <= 3


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "retry_after", ["3600", "60", faults.http_date(86_400)], ids=["an hour", "a minute", "a date"]
)
def test_a_retry_after_beyond_the_deadline_fails_at_once(
    provider: FakeProvider, service: GetService, stage: Stage, retry_after: str
) -> None:
    """The client does not wait for a retry that its own deadline rules out."""
    stage.set_fault(provider, faults.status(429, retry_after))
    stage.check(service(request_timeout_s=30).ask(stage.path), UNAVAILABLE)
    assert len(stage.requests(provider)) == 1


def test_a_retry_after_within_the_deadline_is_respected(provider: FakeProvider, service: GetService) -> None:
    """The retry comes no earlier than the provider asked."""
    STREAM.set_fault(provider, faults.at_first(faults.status(429, "1")))
    assert service(request_timeout_s=30).ask(STREAM.path).code == "answered"
    first, second = provider.chat.requests
    assert second.arrived - first.arrived >= 1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("retry_after", ["soon", "-1", "nan", "inf", "1e400", "9" * 400, "\xff"])
def test_an_invalid_retry_after_does_no_harm(
    provider: FakeProvider, service: GetService, stage: Stage, retry_after: str
) -> None:
    """A malformed header leads to ordinary retries."""
    stage.set_fault(provider, faults.status(429, retry_after))
    stage.check(service().ask(stage.path), UNAVAILABLE)
    assert 1 <= len(stage.requests(provider)) <= 3


TOO_SLOW = {
    "hang": slow_faults.hang,
    "hang in the body": slow_faults.hang_in_body,
    "byte by byte": slow_faults.byte_by_byte,
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("slow", TOO_SLOW.values(), ids=TOO_SLOW)
def test_a_provider_that_exceeds_the_deadline_is_a_504(
    provider: FakeProvider, service: GetService, stage: Stage, slow: Slow
) -> None:
    """The deadline is the request's: a byte now and then does not extend it."""
    watched = service(**LIMITS)
    stage.set_fault(provider, taking(1.1 * DEADLINE_S, watched.clock, slow))
    stage.check(watched.ask(stage.path), TIMEOUT)
    assert len(stage.requests(provider)) == 1


NO_TOKENS = {
    "hang": slow_faults.hang,
    "comments": slow_faults.again_and_again(faults.PING),
    "empty deltas": slow_faults.again_and_again(faults.EMPTY_DELTA),
}


@pytest.mark.parametrize("slow", NO_TOKENS.values(), ids=NO_TOKENS)
def test_a_stream_without_a_first_token_ends_at_the_deadline(
    provider: FakeProvider, service: GetService, slow: Slow
) -> None:
    """Only tokens count: comments and empty deltas do not."""
    watched = service(**LIMITS)
    STREAM.set_fault(provider, faults.after(ROLE, taking(1.1 * DEADLINE_S, watched.clock, slow)))
    STREAM.check(watched.ask(STREAM.path), TIMEOUT)
    assert len(provider.chat.requests) == 1


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("slow", NO_TOKENS.values(), ids=NO_TOKENS)
def test_a_stream_that_falls_silent_ends_before_the_deadline(
    provider: FakeProvider, service: GetService, slow: Slow, tokens: int
) -> None:
    """The error follows the tokens that have already reached the client."""
    watched = service(**LIMITS)
    silence = taking(1.1 * IDLE_S, watched.clock, slow)
    STREAM.set_fault(provider, faults.after(ROLE + tokens, faults.when_told(silence)))
    provider_message = "".join(PIECES[:tokens])
    outcome = watched.ask(STREAM.path, when_heard(provider_message, provider))
    STREAM.check(outcome, TIMEOUT)
    assert tokens_of(outcome) == provider_message
    assert len(provider.chat.requests) == 1


def test_a_slow_stream_is_not_a_silent_one(provider: FakeProvider, service: GetService) -> None:
    """Each token restarts the time limit for the next one."""
    watched = service(**LIMITS)

    async def slowly(exchange: Exchange) -> None:
        role, *tokens = exchange.good_events()[: ROLE + len(PIECES)]
        await exchange.start()
        await exchange.send_chunk(role)
        for each in tokens:
            await exchange.send_chunk(each)
            await asyncio.wrap_future(provider.go_on)
            provider.go_on = Future()
            await asyncio.wrap_future(watched.clock.move(0.6 * IDLE_S))
        await exchange.send_chunk(b"".join(exchange.good_events()[ROLE + len(PIECES) :]))
        await exchange.end()

    STREAM.set_fault(provider, slowly)
    assert watched.ask(STREAM.path, when_more_is_heard(provider)).code == "answered"


@pytest.mark.parametrize("stage", [EMBEDDING, STREAM], ids=["embedding", "stream"])
def test_a_refused_connection_is_a_502(
    provider: FakeProvider, watched_settings: Callable[..., Settings], stage: Stage
) -> None:
    """A provider on which nothing listens is unavailable."""
    values: dict[str, Any] = {"openai_base_url": f"http://127.0.0.1:{free_port()}/v1"}
    if stage.fails == "chat":
        values |= {"embedding_provider": "local", "index_dir": watched_settings().index.dir / "local"}
    settings = watched_settings(**values)
    if stage.fails == "chat":
        build(settings)
    with serve_watched(create_app(settings, TIMING), provider) as watched:
        stage.check(watched.ask(stage.path), UNAVAILABLE)


def tokens_of(outcome: Outcome) -> str:
    assert outcome.events is not None
    return "".join(outcome.events.tokens)


def when_heard(text: str, provider: FakeProvider) -> Callable[[str], None]:
    """Let the provider continue once this text has reached the client."""

    def listen(heard: str) -> None:
        if heard == text and not provider.go_on.done():
            provider.go_on.set_result(None)

    return listen


def when_more_is_heard(provider: FakeProvider) -> Callable[[str], None]:
    """Let the provider continue whenever the client has received more."""
    before = ""

    def listen(heard: str) -> None:
        nonlocal before
        if heard != before and not provider.go_on.done():
            before = heard
            provider.go_on.set_result(None)

    return listen


ENDS = {"reset": faults.reset, "cut off": faults.cut, "regular end": faults.end}


@pytest.mark.parametrize("tokens", range(1, len(PIECES) + 1))
@pytest.mark.parametrize("fault", ENDS.values(), ids=ENDS)
def test_a_stream_that_breaks_off_is_an_error_after_its_tokens(
    provider: FakeProvider, service: GetService, fault: Fault, tokens: int
) -> None:
    """Without a finish reason there is no answer, and a stream that has begun is never retried."""
    provider.pieces = ["It", " lasts", " sixteen", " weeks"]
    STREAM.set_fault(provider, faults.after(ROLE + tokens, faults.when_told(fault)))
    provider_message = "".join(provider.pieces[:tokens])
    outcome = service().ask(STREAM.path, when_heard(provider_message, provider))

    STREAM.check(outcome, UNAVAILABLE)
    assert tokens_of(outcome) == provider_message
    assert len(provider.chat.requests) == 1


@pytest.mark.parametrize("events", [0, ROLE])
@pytest.mark.parametrize("fault", ENDS.values(), ids=ENDS)
def test_a_stream_that_breaks_off_before_its_first_token_is_retried(
    provider: FakeProvider, service: GetService, fault: Fault, events: int
) -> None:
    """The client has seen nothing of it yet."""
    STREAM.set_fault(provider, faults.at_first(faults.after(events, fault)))
    outcome = service().ask(STREAM.path)
    assert isinstance(outcome.events, Answered)
    assert tokens_of(outcome) == "".join(PIECES)
    assert len(provider.chat.requests) == 2


# Not a reset: it could take the finish reason along.
@pytest.mark.parametrize("then", [faults.cut, faults.end, faults.hang])
def test_a_stream_is_complete_at_its_finish_reason(
    provider: FakeProvider, service: GetService, then: Fault
) -> None:
    """Some servers send no [DONE], or keep the connection open."""
    told = ROLE + len(PIECES)

    async def finish(exchange: Exchange) -> None:
        await exchange.send_chunk(exchange.good_events()[told])
        await then(exchange)

    STREAM.set_fault(provider, faults.after(told, faults.when_told(finish)))
    outcome = service(**LIMITS).ask(STREAM.path, when_heard("".join(PIECES), provider))
    assert isinstance(outcome.events, Answered), outcome
    assert outcome.events.answer["answer"] == "".join(PIECES)


@pytest.mark.parametrize("tokens", [0, 1, 3])
@pytest.mark.parametrize(
    "content",
    [
        *(faults.MALFORMED, faults.NOT_UTF8, faults.ERROR_OBJECT),
        *(b"", b"null", b"7", b'"text"', b"[]", b"{}"),
        *(b'{"choices": 7}', b'{"choices": [7]}', b'{"choices": [{"delta": 7}]}'),
        b'{"choices": [{"index": 0, "delta": {"content": {"a": 1}}, "finish_reason": null}]}',
    ],
)
def test_a_malformed_event_ends_the_stream(
    provider: FakeProvider, service: GetService, content: bytes, tokens: int
) -> None:
    """Tokens before it reach the client, and nothing after it does."""
    STREAM.set_fault(provider, faults.after(ROLE + tokens, faults.send_event(content)))
    outcome = service().ask(STREAM.path)
    STREAM.check(outcome, UNAVAILABLE)
    assert "".join(PIECES[:tokens]).startswith(tokens_of(outcome))
    assert len(provider.chat.requests) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_may_be_split_anywhere(
    provider: FakeProvider, service: GetService, size: int, line_end: bytes
) -> None:
    """Parts may end within a line or a character; line ends, comments, names and blanks may vary."""
    provider.pieces = ["Fünf", " 木", " 🙂 [1]"]

    async def in_parts(exchange: Exchange) -> None:
        events = b": hello\n\nevent: message\nid: 1\n" + b"".join(exchange.good_events())
        content = events.replace(b"data: ", b"data:").replace(b"\n", line_end)
        await exchange.start()
        for start in range(0, len(content), size):
            await exchange.send_chunk(content[start : start + size])
        await exchange.end()

    STREAM.set_fault(provider, in_parts)
    outcome = service().ask(STREAM.path)
    assert isinstance(outcome.events, Answered)
    assert outcome.events.answer["answer"] == "Fünf 木 🙂 [1]"
    assert outcome.events.answer["usage"] == {"prompt_tokens": 812, "completion_tokens": 64}


def tokens_without_end(text: str, at_once: int) -> Fault:
    delta = event(json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))
    return faults.after(0, faults.pour(delta * at_once))


ENDLESS = {
    "embedding": (EMBEDDING, faults.endless),
    "answer": (CHAT, faults.endless),
    "line": (STREAM, faults.endless),
    "line after a token": (STREAM, faults.after(FIRST_TOKEN, faults.pour(b"a" * 65536))),
    "tokens": (STREAM, tokens_without_end("a" * 100_000, 1)),
}


@pytest.mark.parametrize(("stage", "fault"), ENDLESS.values(), ids=ENDLESS)
def test_an_endless_answer_is_cut_off(
    provider: FakeProvider, service: GetService, stage: Stage, fault: Fault
) -> None:
    """It ends long before the memory is full, and before the deadline."""
    stage.set_fault(provider, fault)
    stage.check(service(**LIMITS).ask(stage.path), UNAVAILABLE)
    assert provider.sent_bytes < faults.ENDLESS_BYTES
    assert len(stage.requests(provider)) == 1


def test_an_endless_stream_ends_at_the_deadline(provider: FakeProvider, service: GetService) -> None:
    """However fast its tokens come, the deadline ends it."""
    # This test may be behind with reading when the clock is moved.
    patient = replace(TIMING, stream=StreamTimes(stalled_s=2 * DEADLINE_S))
    watched = service(timing=patient, **LIMITS)
    moved: list[Future[None]] = []

    def move_once(heard: str) -> None:
        if heard and not moved:
            moved.append(watched.clock.move(DEADLINE_S))

    STREAM.set_fault(provider, tokens_without_end("a b ", 50))
    outcome = watched.ask(STREAM.path, move_once)
    assert isinstance(outcome.events, Failed)


def test_an_answer_cut_at_the_models_length_limit_is_complete(
    provider: FakeProvider, service: GetService
) -> None:
    """The finish reason `length` is a regular end."""

    provider.finish_reason = "length"
    outcome = service().ask(STREAM.path)
    assert isinstance(outcome.events, Answered)


def test_an_empty_stream_is_a_502(provider: FakeProvider, service: GetService) -> None:
    """An answer without tokens is an error, like an empty answer of POST /query."""
    provider.pieces = []
    outcome = service().ask(STREAM.path)
    assert isinstance(outcome.events, Failed)
    STREAM.check(outcome, UNAVAILABLE)
