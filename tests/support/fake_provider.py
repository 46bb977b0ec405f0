"""A fake of the model provider's API, served over HTTP, with its faults."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DIMENSIONS = 96

Fault = Callable[[Request, dict[str, Any]], Response | None]


@dataclass
class FakeProvider:
    """Embeds by words, so that texts with common words are near; answers `reply`.

    Attributes:
        embedding_fault, chat_fault: called first with each request; a response that it gives is sent instead.
        distort: changes an embeddings response before it is sent.
    """

    reply: str = "The passage says so [1]."
    delay_s: float = 0.0
    embedding_fault: Fault | None = None
    chat_fault: Fault | None = None
    distort: Callable[[dict[str, Any]], None] | None = None
    embedding_requests: list[dict[str, Any]] = field(default_factory=list)
    chat_requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.__dict__.update(FakeProvider().__dict__)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _embeddings(self, request: Request) -> Response:
        body = await self._receive(request, self.embedding_requests)
        if self.embedding_fault and (response := self.embedding_fault(request, body)):
            return response
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
        # Python's own encoder, because it writes NaN, as careless servers do.
        return Response(json.dumps(answer), media_type="application/json")

    async def _chat(self, request: Request) -> Response:
        body = await self._receive(request, self.chat_requests)
        if self.chat_fault and (response := self.chat_fault(request, body)):
            return response
        return JSONResponse(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": self.reply},
                    }
                ],
                "usage": {"prompt_tokens": 812, "completion_tokens": 64, "total_tokens": 876},
            }
        )

    async def _receive(self, request: Request, requests: list[dict[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        requests.append(body)
        self.headers.append(dict(request.headers))
        await asyncio.sleep(self.delay_s)
        return body


def failing_with(status: int, text: str = "secret inner text") -> Fault:
    return lambda _request, _body: JSONResponse({"error": {"message": text}}, status_code=status)


def embed(text: str) -> list[float]:
    """A bag of words, hashed: equal words give equal parts."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % DIMENSIONS
        vector[place] += 1.0
    return vector if any(vector) else [1.0] + [0.0] * (DIMENSIONS - 1)
