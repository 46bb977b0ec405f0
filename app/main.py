"""The FastAPI application, its start and its stop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypedDict

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import __version__
from app.bootstrap.middleware import MiddlewareParts, make_middleware, make_middleware_parts
from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_index_manager
from app.bootstrap.timing import PRODUCTION, Timing
from app.bootstrap.tracing import NO_TELEMETRY
from app.config.settings import Settings, load_settings
from app.http.openapi import describe
from app.http.paths import is_probe
from app.http.problems import install_handlers
from app.http.routes import chat, documents, health, metrics, query
from app.http.sse import StreamTimes
from app.observability.metrics import Metrics
from app.serving.index_manager import IndexManager

# The time for a build to end and clean up. If it takes longer, the next build cleans up after it.
_STOP_GRACE_S = 3.0

DESCRIPTION = "Ask your documents. Answers cite the passages they rest on."


class State(TypedDict):
    """The parts that routes take from `request.state`."""

    manager: IndexManager
    metrics: Metrics
    stream_times: StreamTimes


def create_app(settings: Settings | None = None, timing: Timing = PRODUCTION) -> FastAPI:
    """Build the application.

    Args:
        settings: by default those of the environment, which uvicorn's workers rely on.
        timing: the times that no setting changes; tests shorten or prolong them.
    """
    settings = settings or load_settings()
    parts = make_middleware_parts(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with _running(settings, parts, timing) as manager:
            with parts.drain.on_signals(manager.stop):
                yield {"manager": manager, "metrics": parts.metrics, "stream_times": timing.stream}

    # Its documentation pages include their scripts, which FastAPI's own load from a CDN.
    app = FastAPIOffline(
        title="RAG service",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        middleware=make_middleware(settings, parts, timing),
        redoc_url=None,
        telemetry=parts.tracing.for_fastapi(is_probe) if parts.tracing else NO_TELEMETRY,
    )
    install_handlers(app)
    for module in (query, chat, documents, health, metrics):
        app.include_router(module.router)
    with_keys = parts.keys is not None
    app.openapi = lambda: describe(app, with_keys=with_keys)  # type: ignore[method-assign] # FastAPI's documented way
    return app


@asynccontextmanager
async def _running(settings: Settings, parts: MiddlewareParts, timing: Timing) -> AsyncIterator[IndexManager]:
    """Start the parts, and close them in the reverse order, also if a later one fails to start."""
    async with AsyncExitStack() as stack:
        if parts.limiter is not None:
            stack.push_async_callback(parts.limiter.close)
        if parts.tracing is not None:
            stack.push_async_callback(asyncio.to_thread, parts.tracing.close)
        provider = make_provider(settings, parts.metrics.provider)
        stack.push_async_callback(provider.close)
        manager = await asyncio.to_thread(make_index_manager, settings, provider, parts.metrics, timing)
        stack.push_async_callback(manager.close)
        await manager.start()
        relax_gc()
        await stack.enter_async_context(_following(manager))
        yield manager


@asynccontextmanager
async def _following(manager: IndexManager) -> AsyncIterator[None]:
    """Build the first index, and swap in each new one, until the end."""
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        manager.stop()
        await asyncio.wait({task}, timeout=_STOP_GRACE_S)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def relax_gc() -> None:
    """Make garbage collections rare, once all objects that stay have been loaded.

    A full collection of these objects takes 100 ms. With the default threshold of 700 objects, each request
    causes several collections, which cost 6 % of the throughput.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
