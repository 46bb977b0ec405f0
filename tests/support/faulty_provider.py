"""A model provider over a bare socket: it can fail in ways that no web framework lets a handler fail in."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.support.fake_provider import FakeProvider

EMBEDDINGS = "/v1/embeddings"
CHAT = "/v1/chat/completions"

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Exchange:
    """A request, and the means to answer it well, badly or not at all."""

    method: str
    path: str
    body: dict[str, Any]
    provider: FaultyProvider
    arrived: float
    _writer: asyncio.StreamWriter

    @property
    def streaming(self) -> bool:
        return bool(self.body.get("stream"))

    def good_answer(self) -> bytes:
        if self.path == EMBEDDINGS:
            return self.provider.good.embeddings_answer(self.body)
        return b"".join(self.good_events()) if self.streaming else self.provider.good.chat_answer(self.body)

    def good_events(self) -> list[bytes]:
        return self.provider.good.chat_events(self.body)

    async def answer_well(self) -> None:
        if not self.streaming:
            await self.answer(200, self.good_answer())
            return
        await self.start()
        for each in self.good_events():
            await self.send_chunk(each)
        await self.end()

    async def answer(self, status: int, content: bytes, **headers: str) -> None:
        """All at once; underscores in the names of headers stand for hyphens."""
        await self.start(status, content_length=str(len(content)), **headers)
        await self.send(content)

    async def start(self, status: int = 200, **headers: str) -> None:
        """The head; the body is sent in chunks, if no `content_length` is given."""
        media_type = "text/event-stream" if self.streaming and status == 200 else "application/json"
        defaults = {"content_type": media_type}
        if "content_length" not in headers:
            defaults["transfer_encoding"] = "chunked"
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in (defaults | headers).items()]
        await self.send("\r\n".join([f"HTTP/1.1 {status} Status", *lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self.provider.sent_bytes += len(data)

    async def send_chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """The regular end of a body that is sent in chunks."""
        await self.send(b"0\r\n\r\n")

    async def hang(self) -> NoReturn:
        """Until the client goes away."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    def cut(self) -> None:
        """Close the connection as a process that ends does."""
        self._writer.close()

    def reset(self) -> None:
        """Drop the connection as a machine that is overrun does: TCP RST instead of FIN."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultyProvider:
    """Answers as `good` does, but where a fault is set.

    Attributes:
        embedding_fault, chat_fault: answers each request of its endpoint, in its own way.
        exchanges: all requests, in order; those that came elsewhere, too.
        go_on: what a fault waits for that is to strike at a point that the test sees.
        sent_bytes: of everything.
    """

    good: FakeProvider = field(default_factory=FakeProvider)
    embedding_fault: Fault | None = None
    chat_fault: Fault | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    go_on: Future[None] = field(default_factory=Future)
    sent_bytes: int = 0
    _open: set[Exchange] = field(default_factory=set)
    _connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None

    def reset(self) -> None:
        """As if just started, but for the connections there are."""
        new = FaultyProvider(_open=self._open, _connections=self._connections, _loop=self._loop)
        self.__dict__.update(new.__dict__)

    @property
    def embedding_requests(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.path == EMBEDDINGS]

    @property
    def chat_requests(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.path == CHAT]

    @property
    def open_requests(self) -> int:
        """Those whose answer is not finished, and whose client is still there."""
        return len(self._open)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def close_idle(self) -> None:
        """Close the connections that are kept for a next request; from any thread, when none is open."""
        if self._loop:
            for writer in list(self._connections):
                self._loop.call_soon_threadsafe(writer.close)

    async def drop_all(self) -> None:
        for writer in self._connections:
            writer.transport.abort()
        if tasks := list(self._connections.values()):
            await asyncio.wait(tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task
        self._connections[writer] = task
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._answer_while_connected(await self._receive(reader, writer), reader)
        finally:
            writer.close()
            del self._connections[writer]

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        body = json.loads(content) if content else {}
        return Exchange(method, path, body, self, time.monotonic(), writer)

    async def _answer_while_connected(self, exchange: Exchange, reader: asyncio.StreamReader) -> None:
        self._open.add(exchange)
        self.exchanges.append(exchange)
        answer = asyncio.ensure_future(self._answer(exchange))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer
            else:
                exchange.cut()
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.wait({answer, gone})
            self._open.discard(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        faults = {EMBEDDINGS: self.embedding_fault, CHAT: self.chat_fault}
        if exchange.path not in faults:
            await exchange.answer(404, b"{}")
        elif fault := faults[exchange.path]:
            await fault(exchange)
        else:
            await exchange.answer_well()


@contextmanager
def serve_provider(provider: FaultyProvider) -> Iterator[str]:
    """Serve from a thread; gives its address."""
    address: Future[str] = Future()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=1024)
        address.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await stop.wait()
        server.close()
        await provider.drop_all()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield address.result(30)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive(), "the provider did not stop"
