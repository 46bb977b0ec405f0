"""Limits on the parts of a request that the server reads before the application sees it."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.domain.errors import HeadersTooLarge, RagError, RequestTimeout
from app.http.problems import MEDIA_TYPE, problem_json


class _Reading(Enum):
    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(HttpToolsProtocol):
    """The httptools protocol of uvicorn, with limits on the size and time of a head and on unread bodies.

    uvicorn's own protocol reads 300 MB of headers into memory, and waits forever for a head, even for the
    first byte; its limits apply to h11 only. `BodyLimit` bounds a body while the application reads it.

    Attributes:
        max_head_bytes: the limit of a head that is not complete; `HeaderLimit` checks one that arrives in a
            single read.
        head_timeout_s: the time for a complete head, from the connection, or on a reused connection from the
            head's first byte.
        max_unread_bytes: the limit of a body that arrives after its response, such as after a 401.
    """

    max_head_bytes = 64 * 1024
    head_timeout_s = 10.0
    max_unread_bytes = 1024 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = _Reading.NOTHING
        self._began = False
        self._waited_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_reading, self._began = self._reading, False
        super().data_received(data)
        # Blank lines do not begin a head, and would otherwise keep the connection open forever.
        idle = was_reading is self._reading is _Reading.NOTHING and not self._began
        if idle or self._reading is _Reading.HEAD or self._is_unread():
            self._wait_for_more(len(data))

    def on_message_begin(self) -> None:
        self._reading, self._began = _Reading.HEAD, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reading = _Reading.BODY
        self._stop_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading = _Reading.NOTHING
        self._stop_deadline()
        super().on_message_complete()

    def _is_unread(self) -> bool:
        return self._reading is _Reading.BODY and self.cycle is not None and self.cycle.response_complete

    def _wait_for_more(self, size: int) -> None:
        if self.transport.is_closing():
            return
        self._waited_bytes += size
        if self._is_unread():
            if self._waited_bytes > self.max_unread_bytes:
                self.transport.close()
                return
        elif self._waited_bytes > self.max_head_bytes:
            self._refuse(HeadersTooLarge(f"the headers are larger than {self.max_head_bytes} bytes"))
            return
        if self._deadline is None:
            self._start_deadline()

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.head_timeout_s, self._on_deadline)

    def _stop_deadline(self) -> None:
        self._waited_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        if self._reading is _Reading.HEAD and not self._is_answering():
            self._refuse(RequestTimeout(f"the headers did not arrive within {self.head_timeout_s:g} s"))
        elif self._is_answering():  # the next request is late, but the previous one is still being answered
            self._start_deadline()
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: RagError) -> None:
        if not self._is_answering():  # otherwise it would end up inside another response
            body = problem_json(error)
            head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        self.transport.close()
