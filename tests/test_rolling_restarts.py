"""Two replicas behind a proxy, restarted one after the other under load."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build
from tests.fake_provider import FakeProvider
from tests.http.middleware.test_draining import QUESTION, environment_of
from tests.support.balancer import Balancer
from tests.support.serving import ServerProcess, serve_in_thread, server_process, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]

# A stream lasts for longer than a drain, so that one which has just begun is cut.
_WORDS = 60
_WORD_S = 0.05
_DRAIN_S = "1"


class Load:
    """Asks and asks again, until it is stopped.

    Attributes:
        outcomes: of ordinary requests, their status; of streams, the name of the last event.
    """

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._stopped = threading.Event()
        kinds = [self._ask] * 4 + [self._stream] * 4
        self._threads = [threading.Thread(target=self._repeat, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _repeat(self, kind: Callable[[httpx.Client], str]) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stopped.is_set():
                try:
                    outcome = kind(client)
                except httpx.HTTPError as error:
                    outcome = repr(error)
                self.outcomes[f"{kind.__name__.lstrip('_')}: {outcome}"] += 1

    def _ask(self, client: httpx.Client) -> str:
        return str(client.post("/query", json=QUESTION).status_code)

    def _stream(self, client: httpx.Client) -> str:
        with client.stream("POST", "/query/stream", json=QUESTION) as response:
            if response.status_code != 200:
                return str(response.status_code)
            lines = [line for line in response.iter_lines() if line]
        return "done" if lines[-1] == "data: [DONE]" else lines[-2]


@pytest.mark.timeout(1800)
def test_a_rolling_restart_fails_no_request(
    provider: FakeProvider, openai_settings: MakeSettings, tmp_path: Path, soak: bool
) -> None:
    """Every stream ends with its event, and every process with status 0."""
    build(openai_settings())
    provider.reply = " ".join(["word"] * _WORDS) + " [1]."
    provider.token_s = _WORD_S
    environment = environment_of(openai_settings(), DRAIN_TIMEOUT_S=_DRAIN_S)
    with ExitStack() as stack:

        def start(number: int) -> ServerProcess:
            server = stack.enter_context(server_process(environment, tmp_path / f"{number}.log"))
            server.wait_until_ready()
            return server

        servers = [start(0), start(1)]
        balancer = Balancer([server.url for server in servers])
        url = stack.enter_context(serve_in_thread(balancer.app))
        load = stack.enter_context(Load(url))
        for restart in range(20 if soak else 3):
            wait_for_more(load)
            which = restart % 2
            wait_for_a_stream(balancer, servers[which].url)
            assert servers[which].stop() == 0
            servers[which] = start(2 + restart)
            balancer.replicas[which] = servers[which].url
        wait_for_more(load)
        load.__exit__()
    assert set(load.outcomes) <= {"ask: 200", "stream: done", "stream: event: error"}, load.outcomes
    # What there is to be seen was there to be seen.
    assert load.outcomes["stream: event: error"] > 0
    assert balancer.retried > 0
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


def wait_for_more(load: Load) -> None:
    """Of each kind some, so that the next restart meets all of them."""
    before = load.outcomes["ask: 200"], load.outcomes["stream: done"]
    wait_for(
        lambda: load.outcomes["ask: 200"] > before[0] + 20 and load.outcomes["stream: done"] > before[1] + 2,
        "answers",
    )


def wait_for_a_stream(balancer: Balancer, replica: str) -> None:
    """One that begins now, for the restart to cut."""
    before = balancer.streams[replica]
    wait_for(lambda: balancer.streams[replica] > before, "a stream")
