"""A request to the provider, and the means to answer it well, badly or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from tests.fake_provider.answers import STREAM_HEAD, Answer, Json, chunk, head

if TYPE_CHECKING:
    from tests.fake_provider.provider import Endpoint, FakeProvider
    from tests.fake_provider.server import Connection

BeforePiece = Callable[[int], Awaitable[None]]


class Exchange:
    """A request that has arrived.

    Attributes:
        body: of the request; empty where it has none.
        endpoint: None where the provider has no such path.
        arrived: by `time.monotonic`.
    """

    def __init__(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: Json,
    ) -> None:
        self.connection = connection
        self.provider: FakeProvider = connection.provider
        self.endpoint: Endpoint | None = self.provider.endpoint(method, path)
        self.method = method
        self.path = path
        self.body = body
        self.arrived = time.monotonic()
        self._headers = headers

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request, names in lower case."""
        return {name.decode().lower(): value.decode("latin-1") for name, value in self._headers}

    @property
    def streaming(self) -> bool:
        return bool(self.body.get("stream"))

    def good(self, **changes: Any) -> Answer:
        """Return the answer where nothing is wrong, to this request with other values in its body."""
        assert self.endpoint is not None
        return self.endpoint.answer(self.provider, self.body | changes)

    def good_answer(self) -> bytes:
        return self.good().body

    def good_events(self) -> list[bytes]:
        return [event.data for event in self.good().events or ()]

    async def answer_well(self, before_piece: BeforePiece | None = None) -> None:
        """Send the good answer with the latency that is set.

        Args:
            before_piece: waited for before each piece of a stream, with its number.
        """
        if self.endpoint is None:
            await self.answer(404, b'{"error": {"message": "no such route"}}')
            return
        answer = self.good()
        await asyncio.sleep(self.endpoint.latency_s)
        if answer.events is None or not (self.provider.token_s or before_piece):
            await self.send(answer.wire)
            return
        # What comes at the same time is sent at once, as one packet.
        burst = [STREAM_HEAD]
        for data, piece in answer.events:
            if before_piece and piece is not None:
                await self.send(b"".join(burst))
                await before_piece(piece)
                burst = []
            if self.provider.token_s and piece:
                await self.send(b"".join(burst))
                await asyncio.sleep(self.provider.token_s)
                burst = []
            burst.append(chunk(data))
        await self.send(b"".join([*burst, chunk(b"")]))

    async def answer(self, status: int, content: bytes, **headers: str) -> None:
        """Send an answer all at once; underscores in the names of headers stand for hyphens."""
        await self.start(status, content_length=str(len(content)), **headers)
        await self.send(content)

    async def start(self, status: int = 200, **headers: str) -> None:
        """Send the head; the body is to be sent in chunks, if no `content_length` is given."""
        media_type = "text/event-stream" if self.streaming and status == 200 else "application/json"
        defaults = {"content_type": media_type}
        if "content_length" not in headers:
            defaults["transfer_encoding"] = "chunked"
        await self.send(head(status, **defaults | headers))

    async def send(self, data: bytes) -> None:
        """Send bytes as they are, no faster than the client reads them."""
        self.connection.write(data)
        await self.connection.drain()

    async def send_chunk(self, data: bytes) -> None:
        await self.send(chunk(data))

    async def end(self) -> None:
        """Send the regular end of a body that is sent in chunks."""
        await self.send(chunk(b""))

    async def hang(self) -> NoReturn:
        """Send nothing until the client goes away."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    def cut(self) -> None:
        """Close the connection as a process that ends does."""
        self.connection.cut()

    def reset(self) -> None:
        """Drop the connection as a machine that is overrun does: TCP RST instead of FIN."""
        self.connection.reset()


Fault = Callable[[Exchange], Awaitable[None]]
