"""An HTTP client that shows each byte as it arrives, and can disconnect in any way."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.sse import Event, EventStreamParser

TIMEOUT_S = 20.0


class RawExchange:
    """A request that was sent, and the part of its response that was read.

    Attributes:
        status_line, status, headers: the head of the response, with names in lower case.
        body: the part of the body read so far, without chunked framing.
        ended: True if the body ended regularly.
        parser: the parser that `events` uses, which also keeps comments.
    """

    def __init__(
        self,
        url: str,
        body: Any,
        *,
        method: str = "POST",
        path: str = "/query/stream",
        version: str = "1.1",
        connection: socket.socket | None = None,
    ) -> None:
        self.parser = EventStreamParser()
        self.body = b""
        self.ended = False
        self.status_line = ""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection = connection or connect(url)
        content = b"" if body is None else json.dumps(body).encode()
        self.connection.sendall(
            f"{method} {path} HTTP/{version}\r\nHost: {urlsplit(url).netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        self._file = self.connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.vanish()

    def read_head(self) -> Self:
        self.status_line = self._line()
        self.status = int(self.status_line.split(" ")[1])
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        return self

    def parts(self) -> Iterator[bytes]:
        """Yield the body as it arrives, chunk by chunk if it is chunked."""
        if self.headers.get("transfer-encoding") == "chunked":
            parts = self._chunks()
        elif "content-length" in self.headers:
            parts = iter([self._exactly(int(self.headers["content-length"]))])
        else:
            parts = iter(lambda: self._file.read1(65536), b"")
        for part in parts:
            self.body += part
            yield part
        self.ended = True

    def read(self) -> bytes:
        for _ in self.parts():
            pass
        return self.body

    def events(self) -> Iterator[Event]:
        for part in self.parts():
            yield from self.parser.feed(part)

    def vanish(self, *, abruptly: bool = False) -> None:
        """Disconnect with a FIN, or abruptly with a RST."""
        if abruptly:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.connection.close()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self._exactly(size)
            self._line()
        assert self._line() == ""

    def _line(self) -> str:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the connection ended in a line: {line!r}"
        return line[:-2].decode("latin-1")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        assert len(data) == size, f"the connection ended {size - len(data)} bytes early"
        return data


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 80), TIMEOUT_S)
