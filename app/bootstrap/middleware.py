"""The middleware, in the order in which a request passes through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.bootstrap.access import make_api_keys, make_rate_limits
from app.bootstrap.timing import PRODUCTION, Timing
from app.bootstrap.tracing import make_tracing
from app.config.networks import parse_networks
from app.config.settings import Settings
from app.http.access_log import AccessLog
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
from app.http.middleware.request_context import RequestRecord
from app.http.middleware.request_trace import RequestTrace
from app.http.paths import DOCS, METRICS, PROBES
from app.http.rate_limiter import RateLimiter
from app.observability.metrics import Metrics

if TYPE_CHECKING:
    # The packages of OpenTelemetry are only there for those who have set it up.
    from app.observability.tracing import Tracing

_SENT_HEADERS = ["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"]
_READ_HEADERS = [
    *("Retry-After", "WWW-Authenticate", "X-Request-ID"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
]


@dataclass(frozen=True)
class MiddlewareParts:
    """Parts that the middleware shares with the rest of the application, which closes them."""

    drain: Drain
    keys: ApiKeys | None
    limiter: RateLimiter | None
    tracing: Tracing | None
    metrics: Metrics


def make_middleware_parts(settings: Settings) -> MiddlewareParts:
    """Make the parts, without connecting anything."""
    return MiddlewareParts(
        Drain(settings.limits.drain_timeout_s),
        make_api_keys(settings),
        make_rate_limits(settings),
        make_tracing(settings),
        Metrics(),
    )


def make_middleware(
    settings: Settings, parts: MiddlewareParts, timing: Timing = PRODUCTION
) -> list[Middleware]:
    """List the middleware from the outside in: the first sees a request first, and its answer last."""
    limits, load = settings.limits, parts.metrics.load
    log = AccessLog(parts.metrics.requests, log_questions=settings.observability.log_questions)
    return [
        # The request's id, its context and its line in the log: all below rely on them.
        Middleware(RequestRecord, log=log, drain=parts.drain),
        # An unexpected exception of any middleware below becomes a problem document with that id.
        Middleware(InternalErrors),
        *_tracing(parts.tracing),
        # Before the access control: a browser asks for leave without a key.
        *_cross_origin(settings),
        # Before the keys are looked for among them.
        Middleware(HeaderLimit),
        *_access_control(settings, parts),
        # Before the body is read: a server that stops reads no more.
        Middleware(RefuseWhenDraining, drain=parts.drain),
        Middleware(BodyLimit, max_bytes=limits.max_body_bytes, timeout_s=limits.request_timeout_s),
        # Below what reads the body, and above the queue: a client that leaves gives up its place.
        Middleware(CancelOnDisconnect),
        Middleware(
            Admission,
            max_concurrency=limits.max_concurrency,
            max_queue=limits.max_queue,
            queue_s=timing.queue_s,
            in_flight=load.in_flight,
            queued=load.queued,
        ),
    ]


def _tracing(tracing: Tracing | None) -> list[Middleware]:
    return [] if tracing is None else [Middleware(RequestTrace, begin=tracing.begin_request)]


def _cross_origin(settings: Settings) -> list[Middleware]:
    if not settings.access.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.access.cors_origins.split(),
            allow_methods=["GET", "POST"],
            allow_headers=_SENT_HEADERS,
            expose_headers=_READ_HEADERS,
        ),
        # Once more below: the problem document gets the headers without which a page cannot read it.
        Middleware(InternalErrors),
    ]


def _access_control(settings: Settings, parts: MiddlewareParts) -> list[Middleware]:
    """The keys first: a limit is counted by the key's name."""
    found = []
    if parts.keys is not None:
        found.append(Middleware(Authentication, keys=parts.keys, open_paths=_open_paths(settings)))
    if parts.limiter is not None:
        address_of = ClientAddress(parse_networks(settings.access.trusted_proxies))
        found.append(Middleware(RateLimit, limiter=parts.limiter, address_of=address_of))
    return found


def _open_paths(settings: Settings) -> frozenset[str]:
    metrics = METRICS if settings.access.open_metrics else frozenset()
    docs = DOCS if settings.access.open_docs else frozenset()
    return PROBES | metrics | docs
