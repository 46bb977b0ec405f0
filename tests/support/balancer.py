"""A reverse proxy over replicas, like nginx with `proxy_next_upstream error http_503 non_idempotent`."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

LOOK_S = 0.5


class Balancer:
    """A proxy that sends requests to the replicas whose `/health` says that they are ready.

    A request that one replica refuses with 503, or never answers, goes to another. From the first byte of a
    response on, failures reach the client.

    Attributes:
        replicas: their addresses; may be changed at any time.
        retried: the number of requests that were sent to another replica.
        streams: the number of streams that each address has begun.
    """

    def __init__(self, replicas: list[str]) -> None:
        self.replicas = replicas
        self.retried = 0
        self.streams: Counter[str] = Counter()
        self._ready: set[str] = set()
        self._turn = itertools.count()
        self._session: aiohttp.ClientSession | None = None
        self.app = Starlette(
            routes=[Route("/{path:path}", self._forward, methods=["POST"])], lifespan=self._lifespan
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as self._session:
            watch = asyncio.create_task(self._watch(self._session))
            yield
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        while True:
            for url in list(self.replicas):
                ready = False
                with suppress(aiohttp.ClientError, OSError):
                    async with session.get(f"{url}/health") as response:
                        ready = response.status == 200
                (self._ready.add if ready else self._ready.discard)(url)
            await asyncio.sleep(LOOK_S)

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        ready = [url for url in self.replicas if url in self._ready] or self.replicas
        first = next(self._turn) % len(ready)
        order = [*ready[first:], *ready[:first]]
        # Replicas that are not known to be ready are tried last: they may have become ready.
        order += [url for url in self.replicas if url not in order]
        for number, url in enumerate(order):
            self.retried += number > 0
            with suppress(aiohttp.ClientError, OSError):
                answer = await self._ask(f"{url}{request.url.path}", body)
                if answer.status != 503:
                    self.streams[url] += answer.content_type == "text/event-stream"
                    return StreamingResponse(
                        _parts(answer), answer.status, media_type=answer.headers["Content-Type"]
                    )
                answer.close()
        return JSONResponse({"code": "no_replica"}, 502)

    async def _ask(self, url: str, body: bytes) -> aiohttp.ClientResponse:
        assert self._session is not None
        return await self._session.post(url, data=body, headers={"Content-Type": "application/json"})


async def _parts(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for part in answer.content.iter_any():
            yield part
