"""Which paths are what: probes, metrics, documentation, and work."""

from __future__ import annotations

from starlette.types import Scope

PROBES = frozenset({"/health", "/health/live"})
METRICS = frozenset({"/metrics"})
# What FastAPIOffline's page loads.
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
    """Whether a request is more than a question of how things are, as a probe's is."""
    return bool(scope["type"] == "http" and scope["method"] == "POST")


def route_of(scope: Scope) -> str:
    """The template of the route that took the request: of them there are few, whatever is asked for."""
    return getattr(scope.get("route"), "path", "none")


def is_probe(scope: Scope) -> bool:
    """Whether a machine asks how things are, every few seconds."""
    path: str = scope["path"]
    return path.startswith("/health") or path == "/metrics"
