"""A client's HTTP/1.1 connection at almost no cost: keep-alive, one request at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

import httptools


class Broken(Exception):
    """The server closed the connection before the end of its response."""


@dataclass(frozen=True)
class Reply:
    """A response.

    Attributes:
        first_at: the time at which the bytes given as `first` had arrived.
    """

    status: int
    body: bytes
    first_at: float | None


class Connection(asyncio.Protocol):
    """An open connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Reply] | None = None
        self._first: bytes | None = None
        self._first_at: float | None = None
        self._body = bytearray()
        self._stays_open = False
        self.closed = False

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a server on this machine."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def exchange(self, request: bytes, first: bytes | None = None) -> Reply:
        """Send a request and wait for the whole response.

        Args:
            first: bytes of the response, whose arrival is timed.

        Raises:
            Broken: the connection was closed before the end of the response.
        """
        if self.closed:
            raise Broken
        self._first, self._first_at = first, None
        self._waiter = self._loop.create_future()
        self._transport.write(request)
        return await self._waiter

    def abort(self) -> None:
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail()

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_headers_complete(self) -> None:
        self._stays_open = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        searched = len(self._body)
        self._body += data
        if self._first is not None and self._first_at is None:
            start = max(0, searched - len(self._first))
            if self._body.find(self._first, start) >= 0:
                self._first_at = time.perf_counter()

    def on_message_complete(self) -> None:
        self.closed = not self._stays_open
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Reply(self._parser.get_status_code(), bytes(self._body), self._first_at))

    def _fail(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Broken())


class Line:
    """A connection that is opened when it is needed, and reopened after it was lost."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._connection: Connection | None = None

    async def exchange(self, request: bytes, first: bytes | None = None) -> Reply:
        """Send a request and wait for the whole response; see `Connection.exchange`.

        Raises:
            Broken, OSError: the connection failed, and is closed.
            TimeoutError: the time is up, and the connection is closed.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._connection is None or self._connection.closed:
                    self._connection = await Connection.open(self._port)
                return await self._connection.exchange(request, first)
        except (OSError, Broken):  # TimeoutError is an OSError
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.abort()


# Sent to every server; those without keys ignore it.
API_KEY = "a-key-of-the-benchmarks"


def post(path: str, body: bytes) -> bytes:
    """Make a POST request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}X-API-Key: {API_KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """Make a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
