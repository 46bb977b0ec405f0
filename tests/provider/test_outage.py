"""The circuit breaker of the service during an outage of its provider."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from app.bootstrap.timing import Timing
from app.config.settings import Settings
from app.main import create_app
from app.provider.circuit_breaker import FAILURES
from app.provider.retry import RetryPolicy
from tests.fake_provider import FakeProvider, faults
from tests.support.moved_clock import Clock, serve_with_clock
from tests.support.serving import wait_for

QUESTION = {"query": "How long is parental leave?"}
DOWN = faults.status(501)  # which is not tried again
DEADLINE_S = 3000  # further away than a test waits: the clock is moved


def ask(service: httpx.Client, path: str = "/query") -> tuple[int, str]:
    response = service.post(path, json=QUESTION)
    return response.status_code, response.json().get("code", "answered")


def test_a_provider_that_is_down_is_not_called(
    provider: FakeProvider, serve_openai_level: Callable[..., httpx.Client]
) -> None:
    """Clients get a 502 at once, and routes that need no language model still work."""
    openai_level = serve_openai_level(Timing(online=RetryPolicy(cool_down_s=300)))
    provider.chat.fault = DOWN
    assert [ask(openai_level) for _ in range(FAILURES + 3)] == [(502, "model_unavailable")] * (FAILURES + 3)
    assert len(provider.chat.requests) == FAILURES
    assert ask(openai_level, "/retrieve") == (200, "answered")
    assert openai_level.get("/health").status_code == 200


def test_a_provider_is_probed_after_the_cool_down(
    provider: FakeProvider, serve_openai_level: Callable[..., httpx.Client]
) -> None:
    """One probe is sent, and its success ends the outage."""
    openai_level = serve_openai_level(Timing(online=RetryPolicy(cool_down_s=0)))
    provider.chat.fault = DOWN
    for _ in range(FAILURES):
        ask(openai_level)
    assert ask(openai_level) == (502, "model_unavailable")
    assert len(provider.chat.requests) == FAILURES + 1, "a probe"
    provider.chat.fault = None
    assert ask(openai_level) == (200, "answered")


def test_a_provider_that_rejects_requests_is_not_down(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """It answers, and may accept the next request."""
    provider.chat.fault = faults.status(400)
    for _ in range(2 * FAILURES):
        ask(openai_level)
    assert len(provider.chat.requests) == 2 * FAILURES


def test_a_stream_that_breaks_off_is_not_an_outage(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """A provider that sent a first token works."""
    provider.chat.fault = faults.after(2, faults.cut)
    for _ in range(FAILURES + 2):
        assert "event: error" in openai_level.post("/query/stream", json=QUESTION).text
    assert len(provider.chat.requests) == FAILURES + 2


def ask_past_the_deadline(url: str, clock: Clock) -> str:
    """Read a whole stream, and let its deadline pass when its first token has come."""
    text = ""
    with httpx.stream("POST", f"{url}/query/stream", json=QUESTION, timeout=60) as response:
        for line in response.iter_lines():
            if '{"token"' in line and '{"token"' not in text:
                clock.move(DEADLINE_S)
            text += line
    return text


def test_a_stream_beyond_our_deadline_is_not_an_outage(
    provider: FakeProvider, openai_settings: Callable[..., Settings]
) -> None:
    """The deadline is ours, and the provider was sending all the time."""
    app = create_app(openai_settings(request_timeout_s=DEADLINE_S))
    provider.pieces = ["word "] * 5_000
    provider.token_s = 0.02
    with serve_with_clock(app) as (url, clock):
        wait_for(lambda: httpx.get(f"{url}/health", timeout=60).status_code == 200, "the index to be ready")
        for _ in range(FAILURES + 1):
            assert "did not finish within" in ask_past_the_deadline(url, clock)
    assert len(provider.chat.requests) == FAILURES + 1
