"""The application."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypedDict

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.bootstrap.middleware import make_layers
from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_index_manager
from app.bootstrap.tracing import NO_TELEMETRY
from app.config.settings import Settings, load_settings
from app.http.openapi import _documented
from app.http.paths import is_probe
from app.http.routes import chat, documents, health, metrics, query
from app.observability.metrics import Metrics
from app.serving.index_manager import IndexManager

# For a build to end and clean up. One that hangs is left behind; the next cleans up after it.
_STOP_GRACE_S = 3.0

DESCRIPTION = "Ask your documents. Answers cite the passages they rest on."


class State(TypedDict):
    manager: IndexManager
    metrics: Metrics


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: from the environment where not given, which is how uvicorn's workers call it.
    """
    settings = settings or load_settings()
    layers = make_layers(settings)
    tracing, figures = layers.tracing, layers.metrics

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        provider = make_provider(settings, figures.provider)
        manager = await asyncio.to_thread(make_index_manager, settings, provider, figures)
        await manager.start()
        relax_gc()
        watch = asyncio.create_task(manager.run())
        with layers.drain.on_signals(manager.stop):
            yield {"manager": manager, "metrics": figures}
        layers.log.close()
        manager.stop()
        await asyncio.wait({watch}, timeout=_STOP_GRACE_S)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await manager.close()
        await provider.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        if layers.limits is not None:
            await layers.limits.close()

    # Its documentation pages bring their scripts along: the stock ones load them from a CDN.
    app = FastAPIOffline(
        title="RAG service",
        description=DESCRIPTION,
        version="0.1.0",
        lifespan=lifespan,
        redoc_url=None,
        telemetry=tracing.for_fastapi(is_probe) if tracing else NO_TELEMETRY,
    )
    layers.add_to(app, settings)
    for module in (query, chat, documents, health, metrics):
        app.include_router(module.router)
    app.openapi = lambda: _documented(app, with_keys=layers.keys is not None)  # type: ignore[method-assign] # FastAPI's documented way
    return app


def relax_gc() -> None:
    """For when all that stays has been loaded: a full collection that looks through it takes 100 ms.

    With the default of 700 objects, there are several collections in each request: 6 % of the throughput.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
