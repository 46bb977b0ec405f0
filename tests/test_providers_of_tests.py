"""The providers that other tests rely on: they answer as OpenAI does, and fail as they say."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support import faults
from tests.support.fake_provider import DIMENSIONS, FakeProvider, embed
from tests.support.faulty_provider import Fault, FaultyProvider, serve_provider
from tests.support.raw_http import RawExchange
from tests.support.serving import serve_in_thread, wait_for
from tests.support.sse import parse
from tests.support.watched import serve_watched

CHAT = {"model": "m", "messages": []}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def _faulty() -> Iterator[tuple[FaultyProvider, str]]:
    provider = FaultyProvider()
    with serve_provider(provider) as url:
        yield provider, url


@pytest.fixture
def faulty(_faulty: tuple[FaultyProvider, str]) -> tuple[FaultyProvider, str]:
    _faulty[0].reset()
    return _faulty


@pytest.fixture(scope="module")
def _fake() -> Iterator[tuple[FakeProvider, str]]:
    provider = FakeProvider()
    with serve_in_thread(provider.app) as url:
        yield provider, url


@pytest.fixture
def fake(_fake: tuple[FakeProvider, str]) -> tuple[FakeProvider, str]:
    _fake[0].reset()
    return _fake


@pytest.fixture(params=["fake", "faulty"])
def either(request: pytest.FixtureRequest) -> tuple[FakeProvider, str]:
    """What both answer where nothing is wrong."""
    provider, url = request.getfixturevalue(request.param)
    return (provider if isinstance(provider, FakeProvider) else provider.good), url


def ask(url: str, body: dict[str, Any], endpoint: str = "chat/completions") -> httpx.Response:
    return httpx.post(f"{url}/v1/{endpoint}", json=body, timeout=60)


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    *events, last = parse(response.content)
    assert last.data == "[DONE]"
    return [json.loads(event.data) for event in events]


def test_a_stream_is_as_openai_sends_it(either: tuple[FakeProvider, str]) -> None:
    """The role, the pieces, the finish reason, the usage, the end mark."""
    provider, url = either
    provider.reply = "It lasts 16 weeks [1]. "
    response = ask(url, STREAM)

    assert response.headers["content-type"].startswith("text/event-stream")
    role, *pieces, finish, usage = chunks(response)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == [
        *("It", " lasts", " 16", " weeks", " [1]. ")
    ]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], 812)
    assert {piece["usage"] for piece in pieces} == {None}


def test_usage_comes_only_where_it_is_asked_for(either: tuple[FakeProvider, str]) -> None:
    provider, url = either
    provider.pieces = ["a", "b"]
    response = ask(url, CHAT | {"stream": True})
    assert len(chunks(response)) == 4
    assert not any("usage" in chunk for chunk in chunks(response))


def test_pieces_are_the_reply_without_a_stream_too(either: tuple[FakeProvider, str]) -> None:
    provider, url = either
    provider.pieces = ["a", "b"]
    answer = ask(url, CHAT).json()
    assert answer["choices"][0]["message"]["content"] == "ab"


def test_embeddings_come_in_the_format_that_is_asked_for(either: tuple[FakeProvider, str]) -> None:
    """base64 of little-endian float32, or lists; those always, where they are to be distorted."""
    provider, url = either
    body = {"model": "m", "input": ["one word", "another"]}

    def vectors(**more: str) -> list[Any]:
        answer = ask(url, body | more, "embeddings").json()
        return [item["embedding"] for item in answer["data"]]

    expected = [embed(text) for text in body["input"]]
    assert vectors() == vectors(encoding_format="float") == expected
    packed = vectors(encoding_format="base64")
    assert [list(struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(each))) for each in packed] == expected
    provider.distort = lambda answer: answer["data"].reverse()
    assert vectors(encoding_format="base64") == expected[::-1]


@pytest.mark.parametrize("abruptly", [True, False])
@pytest.mark.parametrize("body", [CHAT, STREAM])
def test_a_request_is_open_until_its_client_is_gone(
    fake: tuple[FakeProvider, str], faulty: tuple[FaultyProvider, str], body: dict[str, Any], abruptly: bool
) -> None:
    """By FIN or by RST; the handler that waits for something does not keep it open."""
    fake[0].delay_s = 60
    faulty[0].chat_fault = faults.after(2, faults.hang) if "stream" in body else faults.hang
    clients = [
        RawExchange(url, body, path="/v1/chat/completions") for _ in range(3) for url in (fake[1], faulty[1])
    ]
    wait_for(lambda: fake[0].open_requests == faulty[0].open_requests == 3, "all to be open")
    for client in clients:
        client.vanish(abruptly=abruptly)
    wait_for(lambda: fake[0].open_requests == faulty[0].open_requests == 0, "them to end")
    wait_for(lambda: faulty[0].connections == 0, "the connections to end")


def test_a_stream_waits_for_the_test(fake: tuple[FakeProvider, str]) -> None:
    """Before each piece, with its number."""
    provider, url = fake
    numbers: list[int] = []

    async def note(number: int) -> None:
        numbers.append(number)

    provider.pieces, provider.before_piece = ["a", "b", "c"], note
    ask(url, STREAM)
    assert numbers == [0, 1, 2]


def test_a_connection_serves_many_requests_until_it_is_closed(faulty: tuple[FaultyProvider, str]) -> None:
    provider, url = faulty
    with httpx.Client(base_url=url, timeout=60) as client:
        for body in (CHAT, STREAM, CHAT):
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        wait_for(lambda: provider.open_requests == 0, "the last request to end")
        assert provider.connections == 1
        provider.close_idle()
        wait_for(lambda: provider.connections == 0, "the connection to end")
        assert len(provider.chat_requests) == len(provider.exchanges) == 3


FAILS: list[tuple[Fault, type[Exception]]] = [
    (faults.hang, httpx.ReadTimeout),
    (faults.hang_in_body, httpx.ReadTimeout),
    (faults.after(2, faults.hang), httpx.ReadTimeout),
    (faults.reset, httpx.ReadError),
    (faults.reset_in_body, httpx.ReadError),
    (faults.after(0, faults.reset), httpx.ReadError),
    (faults.after(3, faults.reset), httpx.ReadError),
    (faults.cut, httpx.RemoteProtocolError),
    (faults.cut_in_body, httpx.RemoteProtocolError),
    (faults.after(2, faults.cut), httpx.RemoteProtocolError),
    (faults.not_gzip, httpx.DecodingError),
]


@pytest.mark.parametrize(("fault", "error"), FAILS)
def test_a_fault_is_what_it_says(
    faulty: tuple[FaultyProvider, str], fault: Fault, error: type[Exception]
) -> None:
    """As a client without any patience sees it."""
    provider, url = faulty
    provider.chat_fault = fault
    # What does not hang is told, however long a busy machine takes.
    timeout = httpx.Timeout(60, read=0.3 if error is httpx.ReadTimeout else 60)
    with pytest.raises(error):
        httpx.post(f"{url}/v1/chat/completions", json=STREAM, timeout=timeout)
    wait_for(lambda: provider.open_requests == 0, "the request to end")


@pytest.mark.parametrize(
    ("fault", "pieces"),
    [
        (faults.after(0, faults.end), 0),
        (faults.after(1, faults.end), 0),
        (faults.after(3, faults.end), 2),
        (faults.after(2, faults.send_event(faults.MALFORMED)), 1),
        (faults.after(2, faults.send_event(faults.ERROR_OBJECT)), 1),
    ],
)
def test_a_stream_ends_where_it_says(faulty: tuple[FaultyProvider, str], fault: Fault, pieces: int) -> None:
    """In a regular way: only what was sent tells."""
    provider, url = faulty
    provider.good.pieces = ["piece"] * 5
    provider.chat_fault = fault
    assert ask(url, STREAM).text.count('"piece"') == pieces


def test_bytes_come_one_by_one(faulty: tuple[FaultyProvider, str]) -> None:
    provider, url = faulty
    provider.chat_fault = faults.drip(0.001)
    with RawExchange(url, CHAT, path="/v1/chat/completions") as exchange:
        assert json.loads(exchange.read_head().read())["choices"]


@pytest.mark.parametrize("fault", [faults.endless, faults.after(0, faults.pour(b"data: {}\n\n" * 5000))])
def test_an_endless_answer_ends_with_its_client(faulty: tuple[FaultyProvider, str], fault: Fault) -> None:
    """It is as fast as the client, and no faster."""
    provider, url = faulty
    provider.chat_fault = fault
    with RawExchange(url, STREAM, path="/v1/chat/completions") as exchange:
        parts = exchange.read_head().parts()
        while len(exchange.body) < 1_000_000:
            next(parts)
    wait_for(lambda: provider.open_requests == 0, "the request to end")
    assert provider.sent_bytes < faults.ENDLESS_BYTES


def test_a_fault_strikes_when_it_is_told(faulty: tuple[FaultyProvider, str]) -> None:
    provider, url = faulty
    provider.good.pieces = ["a", "b"]
    provider.chat_fault = faults.after(2, faults.when_told(faults.end))
    with RawExchange(url, STREAM, path="/v1/chat/completions") as exchange:
        events = exchange.read_head().events()
        assert '"a"' in [next(events).data for _ in range(2)][1]
        assert provider.open_requests == 1
        provider.go_on.set_result(None)
        assert list(events) == []
        assert exchange.ended


STATUSES: list[tuple[Fault, int, str | None]] = [
    (faults.status(429, "3600"), 429, "3600"),
    (faults.status(503), 503, None),
    (faults.redirect, 302, None),
]


@pytest.mark.parametrize(("fault", "status", "retry_after"), STATUSES)
def test_a_status_comes_with_its_header(
    faulty: tuple[FaultyProvider, str], fault: Fault, status: int, retry_after: str | None
) -> None:
    provider, url = faulty
    provider.embedding_fault = fault
    response = ask(url, {"model": "m", "input": ["a"]}, "embeddings")
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry_after)
    assert len(provider.embedding_requests) == 1
    assert ask(url, CHAT).status_code == 200


def test_only_the_first_requests_fail(faulty: tuple[FaultyProvider, str]) -> None:
    provider, url = faulty
    provider.chat_fault = faults.at_first(faults.status(500), times=2)
    statuses = [ask(url, CHAT).status_code for _ in range(4)]
    assert statuses == [500, 500, 200, 200]


def test_the_fakes_forget_everything(fake: tuple[FakeProvider, str]) -> None:
    """With `reset`, whatever was set."""
    provider, url = fake
    provider.pieces = ["a"]
    ask(url, CHAT)
    provider.reset()
    assert provider == FakeProvider()


def test_a_handler_of_the_test_that_fails_is_seen(fake: tuple[FakeProvider, str]) -> None:
    """It is not taken for a client that is gone."""
    provider, url = fake

    async def fail(_: int) -> None:
        raise asyncio.QueueFull

    provider.before_piece = fail
    with pytest.raises(httpx.RemoteProtocolError):
        ask(url, STREAM)


class LeakyService:
    """Answers well, and leaves something behind each time."""

    def __init__(self, leak: str, provider_url: str) -> None:
        self._leak, self._provider_url = leak, provider_url
        self._left: list[Any] = []

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/health", self._health), Route("/query", self._query, methods=["POST"])]
        )

    def drop_all(self) -> None:
        for each in self._left:
            if isinstance(each, RawExchange):
                each.vanish()
            elif isinstance(each, list):
                for leaked in each:
                    leaked.close()

    async def _health(self, _: Request) -> Response:
        return Response()

    async def _query(self, _: Request) -> Response:
        if self._leak == "slot" and self._left:
            return JSONResponse({"code": "overloaded"}, 503)
        self._left.append(await self._leave())
        return JSONResponse({"status": "answered"})

    async def _leave(self) -> Any:
        match self._leak:
            case "task":
                return asyncio.create_task(asyncio.sleep(60))
            case "socket":
                # Other sockets of this process may be closed meanwhile.
                return [socket.socket() for _ in range(20)]
            case "request":
                path = "/v1/chat/completions"
                return await asyncio.to_thread(RawExchange, self._provider_url, CHAT, path=path)
        return None


@pytest.mark.parametrize("leak", ["task", "socket", "request", "slot"])
def test_what_a_request_leaves_is_noticed(
    faulty: tuple[FaultyProvider, str], monkeypatch: pytest.MonkeyPatch, leak: str
) -> None:
    """Whatever it is."""
    provider, url = faulty
    provider.chat_fault = faults.hang
    leaky = LeakyService(leak, url)
    with serve_watched(leaky.app, provider) as service:
        assert service.ask().code == "answered"
        monkeypatch.setattr("tests.support.watched.LEFT_LIMIT_S", 0.3)
        with pytest.raises(AssertionError):
            service.check_nothing_is_left()
        leaky.drop_all()


def test_nothing_is_noticed_where_nothing_is_left(faulty: tuple[FaultyProvider, str]) -> None:
    provider, url = faulty
    with serve_watched(LeakyService("nothing", url).app, provider) as service:
        assert service.ask().code == "answered"
        service.check_nothing_is_left()
