"""Groups of paths: probes, metrics, documentation, and work."""

from __future__ import annotations

from starlette.types import Scope

PROBES = frozenset({"/health", "/health/live"})
METRICS = frozenset({"/metrics"})
_REPEATED = PROBES | METRICS
# The files that FastAPIOffline's page loads.
DOCS = frozenset(
    {
        "/docs",
        "/docs/oauth2-redirect",
        "/openapi.json",
        "/static-offline-docs/favicon.png",
        "/static-offline-docs/swagger-ui-bundle.js",
        "/static-offline-docs/swagger-ui.css",
    }
)


def is_work(scope: Scope) -> bool:
    """Return True for a POST request, which takes work to answer, unlike probes and lists."""
    return bool(scope["type"] == "http" and scope["method"] == "POST")


def route_of(scope: Scope) -> str:
    """Return the template of the request's route, or `none`: a small set of values, unlike paths."""
    return getattr(scope.get("route"), "path", "none")


def is_probe(scope: Scope) -> bool:
    """Return True for a request that monitoring repeats every few seconds."""
    return scope["path"] in _REPEATED
