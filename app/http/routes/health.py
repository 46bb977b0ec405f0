"""Probes."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.http.routes.dependencies import ManagerDep
from app.http.schemas import HealthResponse, LivenessResponse

router = APIRouter(tags=["health"])


@router.get(
    "/health",
    summary="Readiness: would a query be answered?",
    response_model_exclude_none=True,
    responses={503: {"description": "No; `status` and `detail` say why", "model": HealthResponse}},
)
async def health(manager: ManagerDep, response: Response) -> HealthResponse:
    """Answer 200 when a query would be answered, and else 503 with the reason."""
    health = HealthResponse.of(manager.health())
    response.status_code = 200 if health.index_ready else 503
    return health


@router.get("/health/live", summary="Liveness: does the event loop run?")
async def live() -> LivenessResponse:
    """Answer 200, which only a running event loop does."""
    return LivenessResponse()
