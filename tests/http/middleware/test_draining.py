"""A server that is told to stop while it streams."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build
from tests.fake_provider import FakeProvider, faults
from tests.support.raw_http import RawExchange
from tests.support.serving import ServerProcess, server_process, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]

QUESTION = {"query": "How long is parental leave?"}


@contextmanager
def asked(server: ServerProcess) -> Iterator[Iterator[str]]:
    """The lines of a stream whose first token has come."""
    with httpx.stream("POST", f"{server.url}/query/stream", json=QUESTION, timeout=60) as response:
        lines = response.iter_lines()
        for line in lines:
            if line.startswith('data: {"token"'):
                break
        yield lines


@pytest.fixture
def pausing(provider: FakeProvider) -> threading.Event:
    """The model says one word, and the rest when the event is set."""
    goes_on = threading.Event()

    provider.chat.fault = faults.held_stream(goes_on, from_piece=1)
    return goes_on


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    return {
        "DOCUMENTS_DIR": str(settings.documents.dir),
        "INDEX_DIR": str(settings.index.dir),
        "OPENAI_BASE_URL": str(settings.provider.base_url),
        **more,
    }


def test_a_stream_is_completed_before_the_process_ends(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path
) -> None:
    """The client gets the whole answer, and the process then ends with status 0."""
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
def test_a_stream_of_a_hanging_model_ends_with_its_timeout_event(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path, limit: str
) -> None:
    """The request's own timeout applies, and the server waits no longer than that."""
    build(openai_settings())
    with server_process(environment_of(openai_settings(), **{limit: "15"}), tmp_path / "log") as server:
        server.wait_until_ready()
        # The first of a process takes longer.
        assert httpx.post(f"{server.url}/query", json=QUESTION, timeout=60).status_code == 200
        with asked(server) as lines:
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-2] == "event: error"
        assert '"code":"model_timeout"' in rest[-1]
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output


def is_draining(server: ServerProcess) -> bool:
    health = server.health()
    return health is not None and health.json()["status"] == "draining"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_new_requests_are_refused_during_the_drain(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path, workers: str
) -> None:
    """They get 503 with `Connection: close`, also on old connections. A second SIGTERM changes nothing."""
    build(openai_settings())
    environment = environment_of(openai_settings(), WORKERS=workers)
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: server.output.count("index: serving") == int(workers), "all workers")
        with httpx.Client(base_url=server.url, timeout=60) as kept, asked(server) as lines:
            assert kept.get("/health/live").headers.get("connection") != "close"
            for _ in range(2):
                # To all of its group, as a supervisor may.
                os.killpg(server.process.pid, signal.SIGTERM)
                wait_for(lambda: is_draining(server), "the server to say so")
            for path in ("/query", "/retrieve", "/query/stream"):
                response = httpx.post(f"{server.url}{path}", json=QUESTION, timeout=60)
                assert (response.status_code, response.json()["code"]) == (503, "index_not_ready")
                assert response.headers["connection"] == "close"
                assert response.headers["retry-after"]
            assert httpx.get(f"{server.url}/documents", timeout=60).status_code == 503
            health = kept.get("/health")
            assert (health.status_code, health.headers["connection"]) == (503, "close")
            assert httpx.get(f"{server.url}/health/live", timeout=60).status_code == 200
            pausing.set()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output


def test_a_queued_request_is_still_answered(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path
) -> None:
    """A request that has been admitted gets its answer."""
    build(openai_settings())
    environment = environment_of(openai_settings(), MAX_CONCURRENCY="1")
    with server_process(environment, tmp_path / "log") as server, ThreadPoolExecutor() as pool:
        server.wait_until_ready()
        with asked(server) as lines, RawExchange(server.url, QUESTION, path="/query") as waiting:
            # Answered after what was sent before it.
            httpx.get(f"{server.url}/health/live", timeout=60)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: is_draining(server), "the server to say so")
            answer = pool.submit(lambda: waiting.read_head().status)
            pausing.set()
            assert [line for line in lines if line][-1] == "data: [DONE]"
            assert answer.result(20) == 200
        assert server.process.wait(30) == 0


def test_requests_that_outlast_the_drain_get_an_error(
    pausing: threading.Event, provider: FakeProvider, openai_settings: MakeSettings, tmp_path: Path
) -> None:
    """A stream gets an event and a regular end, another request 503, and the process ends with status 0."""
    build(openai_settings())
    environment = environment_of(
        openai_settings(), DRAIN_TIMEOUT_S="1", STREAM_IDLE_TIMEOUT_S="60", WORKERS="2"
    )
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: server.output.count("index: serving") == 2, "both workers")
        with RawExchange(server.url, QUESTION) as stream:
            events = stream.read_head().events()
            assert next(events).name == "citations"
            provider.embeddings.latency_s = 60
            asked_before = len(provider.embeddings.requests)
            with RawExchange(server.url, {"query": "Which class do trains have?"}, path="/query") as ordinary:
                wait_for(lambda: len(provider.embeddings.requests) > asked_before, "the other question")
                server.process.send_signal(signal.SIGTERM)
                last = list(events)[-1]
                assert (last.name, stream.ended) == ("error", True)
                assert "the server is stopping" in last.data
                ordinary.read_head()
                assert (ordinary.status, ordinary.headers["connection"]) == (503, "close")
                assert json.loads(ordinary.read())["code"] == "index_not_ready"
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_sigint_ends_the_drain_at_once(
    pausing: threading.Event, openai_settings: MakeSettings, tmp_path: Path, workers: str
) -> None:
    """The stream still gets its event, and the process ends with status 0 and no traceback."""
    build(openai_settings())
    environment = environment_of(
        openai_settings(), DRAIN_TIMEOUT_S="600", STREAM_IDLE_TIMEOUT_S="60", WORKERS=workers
    )
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: server.output.count("index: serving") == int(workers), "all workers")
        with asked(server) as lines:
            os.killpg(server.process.pid, signal.SIGINT)
            wait_for(lambda: is_draining(server), "the server to say so")
            os.killpg(server.process.pid, signal.SIGINT)
            *_, name, data = (line for line in lines if line)
            assert name == "event: error"
            assert "the server is stopping" in data
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output
        assert "KeyboardInterrupt" not in server.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_starting_server_can_be_stopped(
    openai_settings: MakeSettings, tmp_path: Path, number: signal.Signals
) -> None:
    """Two signals during the imports end it quietly, with status 0."""
    build(openai_settings())
    with server_process(environment_of(openai_settings()), tmp_path / "log") as server:
        wait_for(lambda: "Started server process" in server.output, "the server to begin")
        server.process.send_signal(number)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output
