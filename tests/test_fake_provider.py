"""The provider that other tests rely on: it answers as OpenAI does, and fails as its faults say."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
import time
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.upstream import Provider
from benchmarks.upstream import provider as provider_process
from tests.fake_provider import DIMENSIONS, FakeProvider, Fault, embed, faults
from tests.support.raw_http import RawExchange
from tests.support.serving import wait_for
from tests.support.sse import parse
from tests.support.watched import serve_watched

CHAT = {"model": "m", "messages": []}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


def ask(url: str, body: dict[str, Any], endpoint: str = "chat/completions") -> httpx.Response:
    return httpx.post(f"{url}/v1/{endpoint}", json=body, timeout=60)


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    *events, last = parse(response.content)
    assert last.data == "[DONE]"
    return [json.loads(event.data) for event in events]


def test_a_stream_has_the_form_of_openais(provider: FakeProvider, provider_url: str) -> None:
    """It has the role, the pieces, the finish reason, the usage and the end mark."""
    provider.reply = "It lasts 16 weeks [1]. "
    response = ask(provider_url, STREAM)

    assert response.headers["content-type"].startswith("text/event-stream")
    role, *pieces, finish, usage = chunks(response)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == [
        *("It", " lasts", " 16", " weeks", " [1]. ")
    ]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}]
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], 812)
    assert {piece["usage"] for piece in pieces} == {None}


def test_usage_is_sent_only_on_request(provider: FakeProvider, provider_url: str) -> None:
    provider.pieces = ["a", "b"]
    response = ask(provider_url, CHAT | {"stream": True})
    assert len(chunks(response)) == 4
    assert not any("usage" in chunk for chunk in chunks(response))


def test_the_pieces_are_the_reply_of_an_ordinary_answer(provider: FakeProvider, provider_url: str) -> None:
    provider.pieces = ["a", "b"]
    answer = ask(provider_url, CHAT).json()
    assert answer["choices"][0]["message"]["content"] == "ab"


def test_embeddings_have_the_requested_format(provider: FakeProvider, provider_url: str) -> None:
    """It is base64 of little-endian float32, or lists; distorted ones are always lists."""
    body = {"model": "m", "input": ["one word", "another"]}

    def vectors(**more: str) -> list[Any]:
        answer = ask(provider_url, body | more, "embeddings").json()
        return [item["embedding"] for item in answer["data"]]

    expected = [embed(text) for text in body["input"]]
    assert vectors() == vectors(encoding_format="float") == expected
    packed = vectors(encoding_format="base64")
    assert [list(struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(each))) for each in packed] == expected
    provider.embeddings.fault = faults.distorted(lambda answer: answer["data"].reverse())
    assert vectors(encoding_format="base64") == expected[::-1]


@pytest.mark.parametrize("abruptly", [True, False])
@pytest.mark.parametrize("slow", ["fault", "latency"])
@pytest.mark.parametrize("body", [CHAT, STREAM])
def test_a_request_is_open_until_its_client_disconnects(
    provider: FakeProvider, provider_url: str, body: dict[str, Any], slow: str, abruptly: bool
) -> None:
    """FIN and RST both end it, even during a fault or an answer that waits."""
    if slow == "latency":
        provider.chat.latency_s = 60
    else:
        provider.chat.fault = faults.after(2, faults.hang) if "stream" in body else faults.hang
    provider.close_idle()
    clients = [RawExchange(provider_url, body, path="/v1/chat/completions") for _ in range(3)]
    wait_for(lambda: provider.open_requests == 3, "all to be open")
    for client in clients:
        client.vanish(abruptly=abruptly)
    wait_for(lambda: provider.open_requests == 0, "them to end")
    wait_for(lambda: provider.connections == 0, "the connections to end")


def test_a_stream_waits_for_the_test(provider: FakeProvider, provider_url: str) -> None:
    """It waits before each piece, and passes the number of the piece."""
    numbers: list[int] = []

    async def note(number: int) -> None:
        numbers.append(number)

    provider.pieces = ["a", "b", "c"]
    provider.chat.fault = faults.stepwise(note)
    ask(provider_url, STREAM)
    assert numbers == [0, 1, 2]


def test_a_connection_serves_many_requests_until_it_is_closed(
    provider: FakeProvider, provider_url: str
) -> None:
    with httpx.Client(base_url=provider_url, timeout=60) as client:
        for body in (CHAT, STREAM, CHAT):
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        wait_for(lambda: provider.open_requests == 0, "the last request to end")
        assert provider.connections == 1
        provider.close_idle()
        wait_for(lambda: provider.connections == 0, "the connection to end")
        assert len(provider.chat.requests) == len(provider.exchanges) == 3


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
def test_each_fault_fails_as_described(
    provider: FakeProvider, provider_url: str, fault: Fault, error: type[Exception]
) -> None:
    """A client without timeouts or retries sees it."""
    provider.chat.fault = fault
    # What does not hang is told, however long a busy machine takes.
    timeout = httpx.Timeout(60, read=0.3 if error is httpx.ReadTimeout else 60)
    with pytest.raises(error):
        httpx.post(f"{provider_url}/v1/chat/completions", json=STREAM, timeout=timeout)
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
def test_a_truncated_stream_ends_at_its_piece(
    provider: FakeProvider, provider_url: str, fault: Fault, pieces: int
) -> None:
    """The connection ends regularly, so that only the content shows it."""
    provider.pieces = ["piece"] * 5
    provider.chat.fault = fault
    assert ask(provider_url, STREAM).text.count('"piece"') == pieces


def test_an_answer_can_be_sent_byte_by_byte(provider: FakeProvider, provider_url: str) -> None:
    provider.chat.fault = faults.drip(0.001)
    with RawExchange(provider_url, CHAT, path="/v1/chat/completions") as exchange:
        assert json.loads(exchange.read_head().read())["choices"]


@pytest.mark.parametrize("fault", [faults.endless, faults.after(0, faults.pour(b"data: {}\n\n" * 5000))])
def test_an_endless_answer_ends_with_its_client(
    provider: FakeProvider, provider_url: str, fault: Fault
) -> None:
    """It is sent as fast as the client reads."""
    provider.chat.fault = fault
    with RawExchange(provider_url, STREAM, path="/v1/chat/completions") as exchange:
        parts = exchange.read_head().parts()
        while len(exchange.body) < 1_000_000:
            next(parts)
    wait_for(lambda: provider.open_requests == 0, "the request to end")
    assert provider.sent_bytes < faults.ENDLESS_BYTES


def test_a_fault_can_wait_for_the_test(provider: FakeProvider, provider_url: str) -> None:
    provider.pieces = ["a", "b"]
    provider.chat.fault = faults.after(2, faults.when_told(faults.end))
    with RawExchange(provider_url, STREAM, path="/v1/chat/completions") as exchange:
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
def test_a_status_has_its_header(
    provider: FakeProvider, provider_url: str, fault: Fault, status: int, retry_after: str | None
) -> None:
    provider.embeddings.fault = fault
    response = ask(provider_url, {"model": "m", "input": ["a"]}, "embeddings")
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry_after)
    assert len(provider.embeddings.requests) == 1
    assert ask(provider_url, CHAT).status_code == 200


def test_a_fault_can_be_limited_to_the_first_requests(provider: FakeProvider, provider_url: str) -> None:
    provider.chat.fault = faults.at_first(faults.status(500), times=2)
    statuses = [ask(provider_url, CHAT).status_code for _ in range(4)]
    assert statuses == [500, 500, 200, 200]


def test_an_error_has_the_given_message(provider: FakeProvider, provider_url: str) -> None:
    """It has OpenAI's form, for tests that look for its words."""
    provider.chat.fault = faults.status(401, message="Incorrect API key provided")
    response = ask(provider_url, CHAT)
    assert (response.status_code, response.json()["error"]["message"]) == (401, "Incorrect API key provided")


def test_an_answer_takes_its_latency(provider: FakeProvider, provider_url: str) -> None:
    """An endpoint has one, and so has each piece of a stream except the first."""
    provider.pieces = ["a", "b", "c"]
    provider.chat.latency_s, provider.token_s = 0.2, 0.1
    started = time.monotonic()
    assert len(chunks(ask(provider_url, STREAM))) == 6
    assert time.monotonic() - started >= 0.4


def test_a_held_stream_continues_when_it_is_released(provider: FakeProvider, provider_url: str) -> None:
    """The pieces before the held one are sent at once."""
    released = threading.Event()
    provider.pieces = ["a", "b"]
    provider.chat.fault = faults.held_stream(released, from_piece=1)
    with RawExchange(provider_url, STREAM, path="/v1/chat/completions") as exchange:
        events = exchange.read_head().events()
        assert '"a"' in [next(events).data for _ in range(2)][1]
        released.set()
        assert '"b"' in next(events).data


def test_an_unknown_path_is_a_404(provider: FakeProvider, provider_url: str) -> None:
    """It is recorded with the other requests."""
    assert httpx.get(f"{provider_url}/elsewhere", timeout=60).status_code == 404
    assert [exchange.path for exchange in provider.exchanges] == ["/elsewhere"]


def test_reset_forgets_settings_and_requests(provider: FakeProvider, provider_url: str) -> None:
    """Neither replies and faults nor recorded requests are left."""
    provider.pieces, provider.token_s = ["a"], 0.001
    provider.chat.latency_s, provider.embeddings.fault = 0.001, faults.hang
    ask(provider_url, STREAM)
    provider.reset()
    new = FakeProvider()
    for name in ("reply", "pieces", "token_s", "chat", "embeddings", "exchanges", "sent_bytes"):
        assert getattr(provider, name) == getattr(new, name), name


def test_an_error_in_a_fault_is_reported(provider: FakeProvider, provider_url: str) -> None:
    """Its client gets half an answer, and is not mistaken for one that disconnected."""

    async def fail(_: int) -> None:
        raise asyncio.QueueFull

    provider.chat.fault = faults.stepwise(fail)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(provider_url, STREAM)


def test_the_provider_runs_as_a_process() -> None:
    """The benchmarks set its latencies and the length of its answer."""
    with provider_process(Provider(chat_ms=1, tokens=3, token_ms=1)) as server:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ask(server.url, STREAM))[:-1]]
        assert [delta.get("content") for delta in deltas] == ["", "The ", "passages ", "say ", None]
        vector = ask(server.url, {"model": "m", "input": "one text"}, "embeddings").json()["data"][0]
        assert len(vector["embedding"]) == 1536


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
def test_anything_that_a_request_leaves_is_noticed(
    provider: FakeProvider, provider_url: str, leak: str
) -> None:
    """Each kind is tried."""
    provider.chat.fault = faults.hang
    leaky = LeakyService(leak, provider_url)
    with serve_watched(leaky.app, provider) as service:
        assert service.ask().code == "answered"
        with pytest.raises(AssertionError):
            service.check_nothing_is_left(limit_s=0.3)
        leaky.drop_all()


def test_a_request_that_leaves_nothing_is_not_reported(provider: FakeProvider, provider_url: str) -> None:
    with serve_watched(LeakyService("nothing", provider_url).app, provider) as service:
        assert service.ask().code == "answered"
        service.check_nothing_is_left()
