"""The kinds of paths: probes, metrics, documentation, and work."""

from __future__ import annotations

from starlette.types import Scope

PROBES = frozenset({"/health", "/health/live"})
METRICS = frozenset({"/metrics"})
_REPEATED = PROBES | METRICS
# All that FastAPIOffline's page loads.
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
    """Tell whether a request is to be admitted, limited and watched: a question, unlike probes and lists."""
    return bool(scope["type"] == "http" and scope["method"] == "POST")


def route_of(scope: Scope) -> str:
    """Return the template of the route that took the request: there are few, whatever is asked for."""
    return getattr(scope.get("route"), "path", "none")


def is_probe(scope: Scope) -> bool:
    """Tell whether a request is one that machines repeat: a probe, or a scrape of metrics."""
    return scope["path"] in _REPEATED
