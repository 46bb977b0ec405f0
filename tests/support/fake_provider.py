"""A fake of the model provider's API, served over HTTP, with its faults."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DIMENSIONS = 96

Fault = Callable[[Request, dict[str, Any]], Response | None]


@dataclass
class FakeProvider:
    """Embeds by words, so that texts with common words are near; answers `reply`, whole or as a stream.

    Attributes:
        pieces: the reply as a stream cuts it; where not given, by words.
        before_piece: waited for before each piece of a stream, with its number.
        embedding_fault, chat_fault: called first with each request; a response that it gives is sent instead.
        distort: changes an embeddings response before it is sent, as lists of numbers.
    """

    reply: str = "The passage says so [1]."
    pieces: Sequence[str] | None = None
    delay_s: float = 0.0
    token_delay_s: float = 0.0
    before_piece: Callable[[int], Awaitable[None]] | None = None
    embedding_fault: Fault | None = None
    chat_fault: Fault | None = None
    distort: Callable[[dict[str, Any]], None] | None = None
    embedding_requests: list[dict[str, Any]] = field(default_factory=list)
    chat_requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _open: set[object] = field(default_factory=set)

    def reset(self) -> None:
        self.__dict__.update(FakeProvider().__dict__)

    @property
    def open_requests(self) -> int:
        """Those whose answer is not finished, and whose client is still there."""
        return len(self._open)

    @property
    def app(self) -> ASGIApp:
        routes = Starlette(
            routes=[
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await routes(scope, receive, send)
                return
            request, still_open = object(), self._open
            still_open.add(request)
            try:
                await _while_connected(routes, scope, receive, send)
            finally:
                still_open.discard(request)

        return counted

    def embeddings_answer(self, body: dict[str, Any]) -> bytes:
        answer: dict[str, Any] = {
            "object": "list",
            "model": body["model"],
            "data": [
                {"object": "embedding", "index": index, "embedding": embed(text)}
                for index, text in enumerate(body["input"])
            ],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        if self.distort:
            self.distort(answer)
        elif body.get("encoding_format") == "base64":
            for item in answer["data"]:
                item["embedding"] = base64.b64encode(
                    struct.pack(f"<{DIMENSIONS}f", *item["embedding"])
                ).decode()
        # Python's own encoder, because it writes NaN, as careless servers do.
        return json.dumps(answer).encode()

    def chat_answer(self, body: dict[str, Any]) -> bytes:
        message = {"role": "assistant", "content": "".join(self._cut())}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return json.dumps(_completion(body, "chat.completion", [choice], _USAGE)).encode()

    def chat_events(self, body: dict[str, Any]) -> list[bytes]:
        """A stream: the role, each piece, the finish reason, the usage if it was asked for, the end mark."""
        deltas: list[tuple[dict[str, str], str | None]] = [
            ({"role": "assistant", "content": ""}, None),
            *(({"content": piece}, None) for piece in self._cut()),
            ({}, "stop"),
        ]
        chunks = [
            _completion(
                body, "chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
            )
            for delta, finish_reason in deltas
        ]
        if (body.get("stream_options") or {}).get("include_usage"):
            for chunk in chunks:
                chunk["usage"] = None
            chunks.append(_completion(body, "chat.completion.chunk", [], _USAGE))
        return [*(event(json.dumps(chunk)) for chunk in chunks), event("[DONE]")]

    def _cut(self) -> Sequence[str]:
        return re.findall(r"\s*\S+\s*$|\s*\S+", self.reply) if self.pieces is None else self.pieces

    async def _embeddings(self, request: Request) -> Response:
        body = await self._receive(request, self.embedding_requests)
        if self.embedding_fault and (response := self.embedding_fault(request, body)):
            return response
        return Response(self.embeddings_answer(body), media_type="application/json")

    async def _chat(self, request: Request) -> Response:
        body = await self._receive(request, self.chat_requests)
        if self.chat_fault and (response := self.chat_fault(request, body)):
            return response
        if body.get("stream"):
            return StreamingResponse(self._stream(body), media_type="text/event-stream")
        return Response(self.chat_answer(body), media_type="application/json")

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        pieces = range(len(self._cut()))
        for number, each in enumerate(self.chat_events(body), start=-1):
            if number in pieces:
                if self.before_piece:
                    await self.before_piece(number)
                await asyncio.sleep(self.token_delay_s)
            yield each

    async def _receive(self, request: Request, requests: list[dict[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        requests.append(body)
        self.headers.append(dict(request.headers))
        await asyncio.sleep(self.delay_s)
        return body


_USAGE = {"prompt_tokens": 812, "completion_tokens": 64, "total_tokens": 876}


def _completion(
    body: dict[str, Any], kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None
) -> dict[str, Any]:
    completion: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": body["model"],
        "choices": choices,
    }
    return completion | ({"usage": usage} if usage else {})


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def _while_connected(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run until the answer is finished or the client is gone, which a handler that waits would not notice."""
    first = await receive()
    messages = [first]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    gone = asyncio.ensure_future(receive())

    async def replay() -> Message:
        return messages.pop(0) if messages else await asyncio.shield(gone)

    answer = asyncio.ensure_future(app(scope, replay, send))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            await answer
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.wait({answer, gone})


def failing_with(status: int, text: str = "secret inner text") -> Fault:
    return lambda _request, _body: JSONResponse({"error": {"message": text}}, status_code=status)


def embed(text: str) -> list[float]:
    """A bag of words, hashed: equal words give equal parts."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % DIMENSIONS
        vector[place] += 1.0
    return vector if any(vector) else [1.0] + [0.0] * (DIMENSIONS - 1)
