"""What every request passes through, from the first that sees it to the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app.assembly.guards import add_guards, make_api_keys, make_rate_limits
from app.assembly.tracing import make_tracing
from app.config.settings import Settings
from app.http.access_log import RequestLog
from app.http.api_keys import ApiKeys
from app.http.middleware.admission import Admission
from app.http.middleware.body_limit import BodyLimit
from app.http.middleware.disconnect import CancelOnDisconnect
from app.http.middleware.draining import Drain, RefuseWhenDraining
from app.http.middleware.internal_errors import InternalErrors
from app.http.middleware.request_context import Observed
from app.http.middleware.request_trace import RequestTrace
from app.http.problems import install_handlers
from app.http.rate_limiter import RateLimits
from app.observability.metrics import Metrics

if TYPE_CHECKING:
    # OpenTelemetry's packages are only there for those who have set it.
    from app.observability.tracing import Tracing


@dataclass(frozen=True)
class Layers:
    """What the layers share with the rest of the application, or hold until it ends."""

    drain: Drain
    keys: ApiKeys | None
    limits: RateLimits | None
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
