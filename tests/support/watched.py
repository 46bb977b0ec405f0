"""A server whose tasks and sockets a test inspects, to find what requests leave behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.types import ASGIApp

from tests.fake_provider import FakeProvider
from tests.fake_provider.faults import SECRET
from tests.support.moved_clock import Clock, serve_with_clock
from tests.support.raw_http import RawExchange
from tests.support.serving import wait_for
from tests.support.stream_protocol import Answered, Failed, check, token_of

# Generous, because a busy machine takes long to clean up; what really leaks stays.
_LEFT_LIMIT_S = 60.0

_REQUEST_TASK = "RequestResponseCycle.run_asgi"
_numbers = itertools.count(1)

T = TypeVar("T")


def question() -> dict[str, Any]:
    """Make a new question, because vectors of known questions are cached."""
    return {"query": f"How long is parental leave? ({next(_numbers)})"}


@dataclass(frozen=True)
class Outcome:
    """The end of a request.

    Attributes:
        code: `answered`, or the code of the problem.
        events: the streamed events; None for an ordinary response.
    """

    status: int
    code: str
    events: Answered | Failed | None = None


@dataclass
class WatchedService:
    """A server, with the tasks and sockets that it has while it is idle.

    Attributes:
        clock: the clock of its event loop.
        clean: True if nothing was left behind after its last use.
    """

    url: str
    provider: FakeProvider
    clock: Clock
    _idle_tasks: Counter[str] = field(default_factory=Counter)
    _idle_sockets: int = 0
    clean: bool = False

    def ask(self, path: str = "/query", heard: Callable[[str], None] | None = None) -> Outcome:
        """Ask a new question, and read the whole answer.

        Args:
            heard: called after each part with the text of all tokens so far.
        """
        with RawExchange(self.url, question(), path=path) as exchange:
            exchange.read_head()
            events = []
            text = ""
            for part in exchange.parts():
                new = exchange.parser.feed(part)
                events.extend(new)
                text += "".join(token_of(event) for event in new if event.data.startswith('{"token"'))
                if heard:
                    heard(text)
        assert SECRET.encode() not in exchange.body, "the provider's message"
        if not exchange.headers["content-type"].startswith("text/event-stream"):
            answer = json.loads(exchange.body)
            return Outcome(exchange.status, answer.get("code", answer.get("status")))
        outcome = check(events)
        if isinstance(outcome, Failed):
            return Outcome(outcome.problem["status"], outcome.problem["code"], outcome)
        return Outcome(exchange.status, outcome.answer["status"], outcome)

    def note_idle(self) -> None:
        """Note the tasks and sockets of the idle server."""
        self.provider.close_idle()
        _wait_for_none("connections to the provider", lambda: self.provider.connections)
        _wait_for_none("request", lambda: _tasks(self.clock.loop)[_REQUEST_TASK])
        # During a step, the manager does not have the task with which it waits.
        _wait_for_none("step of the index manager", lambda: _index_steps(self.clock.loop))
        self._idle_tasks, self._idle_sockets = _tasks(self.clock.loop), _sockets()
        self.clean = False

    def check_nothing_is_left(self, limit_s: float = _LEFT_LIMIT_S) -> None:
        """Assert that no task, socket or provider request is left, and that the next question is answered.

        Args:
            limit_s: the time for each of them to end.
        """
        self._check_no_work(limit_s)
        self.provider.reset()
        assert self.ask() == Outcome(200, "answered")
        self._check_no_work(limit_s)
        self.provider.close_idle()
        _wait_for_none("connections to the provider", lambda: self.provider.connections, limit_s)
        _wait_for_none("sockets", lambda: max(0, _sockets() - self._idle_sockets), limit_s)
        self.clean = True

    def _check_no_work(self, limit_s: float) -> None:
        _wait_for_none("requests at the provider", lambda: self.provider.open_requests, limit_s)
        _wait_for_none("tasks", lambda: _tasks(self.clock.loop) - self._idle_tasks, limit_s)


@contextmanager
def serve_watched(app: ASGIApp, provider: FakeProvider) -> Iterator[WatchedService]:
    with serve_with_clock(app) as (url, clock):
        wait_for(lambda: httpx.get(f"{url}/health", timeout=60).status_code == 200, "the index to be ready")
        service = WatchedService(url, provider, clock)
        service.note_idle()
        yield service


def _tasks(loop: asyncio.AbstractEventLoop) -> Counter[str]:
    """Count the tasks of each kind."""
    return _seen_on(loop, lambda: Counter(_name(task.get_coro()) for task in asyncio.all_tasks(loop)))


def _index_steps(loop: asyncio.AbstractEventLoop) -> int:
    """Return 1 while an index manager is working rather than waiting."""

    def count() -> int:
        coroutines = [task.get_coro() for task in asyncio.all_tasks(loop)]
        managers = [each for each in coroutines if _name(each) == "IndexManager.run"]
        return sum(_name(getattr(each, "cr_await", None)) != "wait_for" for each in managers)

    return _seen_on(loop, count)


def _seen_on(loop: asyncio.AbstractEventLoop, look: Callable[[], T]) -> T:
    """Call a function on the loop, between two of its steps."""
    seen: Future[T] = Future()
    loop.call_soon_threadsafe(lambda: seen.set_result(look()))
    return seen.result(60)


def _name(coroutine: object) -> str:
    name: str = getattr(coroutine, "__qualname__", repr(coroutine))
    return name


def _sockets() -> int:
    """Count the sockets of this process; 0 on systems without /proc."""
    descriptors = Path("/proc/self/fd")
    links = []
    for descriptor in descriptors.iterdir() if descriptors.is_dir() else ():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return sum(link.startswith("socket:") for link in links)


def _wait_for_none(what: str, left: Callable[[], Any], limit_s: float = _LEFT_LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        # Read before the check, as in `wait_for`.
        late = time.monotonic() >= deadline
        if not (rest := left()):
            return
        assert not late, f"left of {what}: {rest}"
        time.sleep(0.002)  # there are many of these tests
