"""Nothing blocks the event loop: not by computing, not by waiting for a file or a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from blockbuster import BlockBuster

from app.config.settings import Settings
from app.main import create_app
from tests.conftest import build
from tests.fake_provider import FakeProvider
from tests.support.serving import serve_in_thread

MakeSettings = Callable[..., Settings]

LIMIT_S = 0.05


@contextmanager
def callbacks_measured() -> Iterator[list[tuple[float, str]]]:
    """The processor time of each event-loop callback in this process: a busy machine changes little."""
    taken: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> Any:
        started = time.thread_time()
        try:
            return run(handle)
        finally:
            taken.append((time.thread_time() - started, repr(handle)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", measured)
        yield taken


def ask_a_hundred_at_once(url: str, body: dict[str, Any]) -> list[int]:
    """From threads, since this process's event loops are the ones that are measured."""
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(timeout=300, limits=limits) as client, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: client.post(url, json=body), range(100)))
    return [0 if "event: error" in answer.text else answer.status_code for answer in answers]


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
@pytest.mark.parametrize("level", ["keyless", "openai"])
def test_no_callback_computes_for_long_under_a_hundred_users(
    level: str, path: str, provider: FakeProvider, openai_settings: MakeSettings
) -> None:
    """The corpus is large, the questions are long, and there are many passages."""
    provider.embeddings.latency_s = provider.chat.latency_s = 0.2
    keyless = {"openai_base_url": None, "openai_api_key": None}
    patient = {"request_timeout_s": 300, "stream_idle_timeout_s": 300}
    settings = openai_settings(**(keyless if level == "keyless" else {}), **patient)
    paragraph = " ".join(f"Paragraph of the handbook about leave, number {number}." for number in range(20))
    text = "\n\n".join(f"# Part {part}\n\n{paragraph}" for part in range(300))
    (settings.documents.dir / "long.md").write_text(text)
    build(settings)
    # A virtual machine may take the time in which its processor was another's for a thread's.
    slow = slow_callbacks(settings, path) and slow_callbacks(settings, path)
    assert slow == []


def slow_callbacks(settings: Settings, path: str) -> list[tuple[float, str]]:
    """Of a server that a hundred users ask at once."""
    body = {"query": "How long is parental leave? " * 100, "top_k": 50}
    with serve_in_thread(create_app(settings)) as url, callbacks_measured() as taken:
        assert ask_a_hundred_at_once(f"{url}{path}", body) == [200] * 100
    assert len(taken) > 500
    return [(seconds, what) for seconds, what in taken if seconds > LIMIT_S]


def test_the_watchdog_reports_a_long_callback() -> None:
    """A callback that blocks is found."""

    async def block() -> None:
        deadline = time.thread_time() + 2 * LIMIT_S
        while time.thread_time() < deadline:
            pass

    with callbacks_measured() as taken:
        asyncio.run(block())
    assert max(taken)[0] > LIMIT_S


@pytest.mark.parametrize(
    "path", ["/query", "/query/stream", "/retrieve", "/documents", "/health", "/health/live", "/v1/models"]
)
def test_no_route_waits_for_a_file_or_a_socket(path: str, openai_level: httpx.Client) -> None:
    """blockbuster raises on any blocking call in an event loop."""
    guard = BlockBuster(scanned_modules="app")
    guard.activate()
    try:
        if path in {"/query", "/query/stream", "/retrieve"}:
            response = openai_level.post(path, json={"query": "How long is parental leave?"})
        else:
            response = openai_level.get(path)
    finally:
        guard.deactivate()
    assert response.status_code == 200, response.text
