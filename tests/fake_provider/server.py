"""An HTTP server over bare sockets: an answer costs little, and can fail in every way."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import cast

import httptools
import orjson

from tests.fake_provider.exchange import Exchange
from tests.fake_provider.provider import FakeProvider

_BACKLOG = 4096
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """A client's connection: one request after the other; who sends a second one too early is cut off.

    Attributes:
        exchange: the request that is being answered.
    """

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self.exchange: Exchange | None = None
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._stays = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self.provider._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    def eof_received(self) -> None:
        self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.provider._connections.discard(self)
        self._stop()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self.exchange is not None:
            self.cut()
            return
        method, path = self._parser.get_method().decode(), self._path.decode()
        body = orjson.loads(self._body) if self._body else {}
        exchange = Exchange(self, method, path, self._headers, body)
        self._stays = self._parser.should_keep_alive()
        self.provider.record(exchange)
        if _is_sent_at_once(exchange):
            self.write(exchange.good().wire)
            self._end()
        else:
            self.exchange = exchange
            self._answer = self._loop.create_task(self._respond(exchange))

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        self.provider.sent_bytes += len(data)

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        if self._transport.is_closing():
            await asyncio.sleep(0)  # what is written to it is dropped: let the task be told that it is gone
        elif self._writable is not None:
            await asyncio.shield(self._writable)

    def cut(self) -> None:
        """Close the connection, once all that was written is sent."""
        self._transport.close()

    def reset(self) -> None:
        """Drop the connection, and what was written with it."""
        connection: socket.socket = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection if nothing is being answered; from any thread."""

        def close() -> None:
            if self.exchange is None:
                self._transport.close()

        self._loop.call_soon_threadsafe(close)

    async def _respond(self, exchange: Exchange) -> None:
        fault = exchange.endpoint.fault if exchange.endpoint else None
        try:
            await (exchange.answer_well() if fault is None else fault(exchange))
        except Exception as error:  # noqa: BLE001 - of the test's own code: its client gets no answer, the log the cause
            self.cut()
            self._loop.call_exception_handler({"message": f"{exchange.path} failed", "exception": error})
        self._end()

    def _end(self) -> None:
        self.exchange = self._answer = None
        if not self._stays:
            self.cut()

    def _stop(self) -> None:
        """Answer no more: the client is gone."""
        self.exchange = None
        if self._answer is not None:
            self._answer.cancel()


def _is_sent_at_once(exchange: Exchange) -> bool:
    """Tell whether the answer can be sent without a task, which costs more than all the rest of it."""
    endpoint = exchange.endpoint
    return (
        endpoint is not None
        and endpoint.fault is None
        and not endpoint.latency_s
        and not (exchange.streaming and exchange.provider.token_s)
    )


async def listen(provider: FakeProvider, port: int = 0) -> asyncio.Server:
    """Begin to serve the provider in this event loop, on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(provider), "127.0.0.1", port, backlog=_BACKLOG)


@contextmanager
def serving(provider: FakeProvider | None = None) -> Iterator[tuple[FakeProvider, str]]:
    """Serve the provider from a thread; gives it, and its address."""
    served = FakeProvider() if provider is None else provider
    address: Future[str] = Future()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        server = await listen(served)
        address.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await stop.wait()
        server.close()
        for connection in list(served._connections):
            connection.abort()
        while served.connections:  # noqa: ASYNC110 - the next turn of the loop ends them
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield served, address.result(30)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive(), "the provider did not stop"
