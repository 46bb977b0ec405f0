"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from app.http.routes.dependencies import problems
from app.observability.metrics import Metrics

router = APIRouter(tags=["health"])

_TEXT = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' format, or in OpenMetrics', as `Accept` says",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}},
        **problems(401, 500),
    },
)
async def metrics(request: Request) -> Response:
    """Return the metrics of all workers, whichever of them answers."""
    kept: Metrics = request.state.metrics
    body, media_type = await asyncio.to_thread(kept.exposition, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})
