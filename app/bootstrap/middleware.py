"""What every request passes through, from the first that sees it to the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.bootstrap.access import make_api_keys, make_rate_limits
from app.bootstrap.tracing import make_tracing
from app.config.networks import parse_networks
from app.config.settings import Settings
from app.http.access_log import RequestLog
from app.http.api_keys import ApiKeys
from app.http.client_address import ClientAddress
from app.http.middleware.admission import Admission
from app.http.middleware.authentication import Authentication
from app.http.middleware.body_limit import BodyLimit
from app.http.middleware.disconnect import CancelOnDisconnect
from app.http.middleware.draining import Drain, RefuseWhenDraining
from app.http.middleware.header_limit import HeaderLimit
from app.http.middleware.internal_errors import InternalErrors
from app.http.middleware.rate_limit import RateLimit
from app.http.middleware.request_context import Observed
from app.http.middleware.request_trace import RequestTrace
from app.http.paths import DOCS, METRICS, PROBES
from app.http.problems import install_handlers
from app.http.rate_limiter import RateLimiter
from app.observability.metrics import Metrics

if TYPE_CHECKING:
    # OpenTelemetry's packages are only there for those who have set it.
    from app.observability.tracing import Tracing


@dataclass(frozen=True)
class Layers:
    """What the layers share with the rest of the application, or hold until it ends."""

    drain: Drain
    keys: ApiKeys | None
    limits: RateLimiter | None
    tracing: Tracing | None
    metrics: Metrics
    log: RequestLog

    def add_to(self, app: FastAPI, settings: Settings) -> None:
        """The last that is added is the first that sees a request."""
        install_handlers(app)
        app.add_middleware(InternalErrors)
        app.add_middleware(
            Admission,
            max_concurrency=settings.max_concurrency,
            max_queue=settings.max_queue,
            in_flight=self.metrics.load.in_flight,
            queued=self.metrics.load.queued,
        )
        app.add_middleware(CancelOnDisconnect)
        app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, timeout_s=settings.request_timeout_s)
        app.add_middleware(RefuseWhenDraining, drain=self.drain)
        add_guards(app, settings, self.keys, self.limits)
        if self.tracing is not None:
            app.add_middleware(RequestTrace, begin=self.tracing.begin_request)
        app.add_middleware(Observed, log=self.log, drain=self.drain)


def make_layers(settings: Settings) -> Layers:
    metrics = Metrics()
    return Layers(
        Drain(settings.drain_timeout_s),
        make_api_keys(settings),
        make_rate_limits(settings),
        make_tracing(settings),
        metrics,
        RequestLog(metrics.requests, log_questions=settings.log_questions),
    )


_SENT_HEADERS = ["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"]
_READ_HEADERS = [
    *("Retry-After", "WWW-Authenticate", "X-Request-ID"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
]


def add_guards(app: FastAPI, settings: Settings, keys: ApiKeys | None, limits: RateLimiter | None) -> None:
    """The last that is added is the first that sees a request."""
    if limits is not None:
        address_of = ClientAddress(parse_networks(settings.trusted_proxies))
        app.add_middleware(RateLimit, limits=limits, address_of=address_of)
    if keys is not None:
        app.add_middleware(Authentication, keys=keys, open_paths=_open_paths(settings))
    app.add_middleware(HeaderLimit)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["GET", "POST"],
            allow_headers=_SENT_HEADERS,
            expose_headers=_READ_HEADERS,
        )


def _open_paths(settings: Settings) -> frozenset[str]:
    metrics = METRICS if settings.open_metrics else frozenset()
    docs = DOCS if settings.open_docs else frozenset()
    return PROBES | metrics | docs
