"""A server that is told to stop while it streams."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.conftest import build
from tests.support.fake_provider import FakeProvider
from tests.support.serving import ServerProcess, server_process

MakeSettings = Callable[..., Settings]

QUESTION = {"query": "How long is parental leave?"}


@contextmanager
def asked(server: ServerProcess) -> Iterator[Iterator[str]]:
    """The lines of a stream whose first token has come."""
    with httpx.stream("POST", f"{server.url}/query/stream", json=QUESTION, timeout=30) as response:
        lines = response.iter_lines()
        for line in lines:
            if line.startswith('data: {"token"'):
                break
        yield lines


@pytest.fixture
def pausing(provider: FakeProvider) -> threading.Event:
    """The model says one word, and the rest when the event is set."""
    goes_on = threading.Event()

    async def pause(number: int) -> None:
        while number > 0 and not goes_on.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.01)

    provider.before_piece = pause
    return goes_on


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    return {
        "DOCUMENTS_DIR": str(settings.documents_dir),
        "INDEX_DIR": str(settings.index_dir),
        "OPENAI_BASE_URL": str(settings.openai_base_url),
        **more,
    }


def test_a_stream_is_finished_first(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path
) -> None:
    """All of it, and then the process ends with status 0."""
    build(openai_settings())
    with server_process(environment_of(openai_settings()), tmp_path / "log") as server:
        server.wait_until_ready()
        with asked(server) as lines:
            server.process.send_signal(signal.SIGTERM)
            pausing.set()
            rest = [line for line in lines if line]
        assert "event: answer" in rest
        assert rest[-1] == "data: [DONE]"
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("limit", ["REQUEST_TIMEOUT_S", "STREAM_IDLE_TIMEOUT_S"])
def test_a_stream_whose_model_hangs_ends_with_its_event(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path, limit: str
) -> None:
    """At the time that it has, and no server waits for longer."""
    build(openai_settings())
    with server_process(environment_of(openai_settings(), **{limit: "2"}), tmp_path / "log") as server:
        server.wait_until_ready()
        with asked(server) as lines:
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-2] == "event: error"
        assert '"code":"model_timeout"' in rest[-1]
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output
