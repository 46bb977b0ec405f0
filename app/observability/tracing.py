"""Traces by OpenTelemetry. Imported only where they are wanted: see app/bootstrap/tracing.py.

FastAPI makes the span of a request, below its caller's; those of its stages are made here, with the names of
the conventions for generative AI (opentelemetry.io/docs/specs/semconv/gen-ai).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from app.domain.errors import RagError
from app.observability.logging import request_id
from app.observability.request_context import SpanAttributes, current_context

# Of a stage that is done in this process.
LOCAL = "local"

_SERVICE = "rag-service"
# A collector that is away must not keep a server from stopping.
_EXPORT_TIMEOUT_S = 3
# Without baggage, which is what callers tell each other and not a provider.
_PROPAGATOR = TraceContextTextMapPropagator()

_OPERATIONS = {"embed": "embeddings", "retrieve": "retrieval", "generate": "chat"}
_ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "dimensions": "gen_ai.embeddings.dimension.count",
    "index": "gen_ai.data_source.id",
    "top_k": "gen_ai.request.top_k",
    "made_by": "gen_ai.response.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
}


class _NoQuery(SpanProcessor):
    """A query string is nothing that this service reads, and may hold anything, such as a key."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "")


class Tracing:
    """Where the spans of a process go. Who samples, and what is sent beside them, OTEL_ variables say.

    Args:
        endpoint: of an OTLP collector, without `/v1/traces`.
        providers: by stage, what `gen_ai.provider.name` says.
    """

    def __init__(self, endpoint: str, providers: Mapping[str, str]) -> None:
        self._providers = providers
        resource = Resource({"service.name": _SERVICE}).merge(OTELResourceDetector().detect())
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._spans.add_span_processor(_NoQuery())
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        self._spans.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._spans.get_tracer(_SERVICE)

    def for_fastapi(self, exclude: Callable[[Scope], bool]) -> TelemetryConfig:
        return {
            "tracer_provider": self._spans,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": exclude,
        }

    def begin_request(self) -> None:
        """To be called within the span that FastAPI has made."""
        context = otel_context.get_current()
        trace.get_current_span(context).set_attribute("rag.request_id", request_id.get())
        current_context().trace = _RequestTrace(self.tracer, self._providers, context)

    def close(self) -> None:
        """Send what is left; not for the event loop."""
        self._spans.shutdown()


class _RequestTrace:
    """See `RequestTrace`. Stages follow each other, so one of them at most is being done."""

    def __init__(self, tracer: trace.Tracer, providers: Mapping[str, str], context: Context) -> None:
        self._tracer = tracer
        self._providers = providers
        self._context = context
        self._current = context

    def begin(self, stage: str, attributes: SpanAttributes) -> _StageSpan:
        operation = _OPERATIONS[stage]
        of_span = {"gen_ai.operation.name": operation, **_known(attributes)}
        if (provider := self._providers.get(stage)) is not None:
            of_span["gen_ai.provider.name"] = provider
        span = self._tracer.start_span(
            # An index's id is no part of the name: there is another one after each reindex.
            f"{operation} {attributes['model']}" if "model" in attributes else operation,
            context=self._context,
            kind=trace.SpanKind.INTERNAL if provider in {None, LOCAL} else trace.SpanKind.CLIENT,
            attributes=of_span,
        )
        self._current = trace.set_span_in_context(span, self._context)
        return _StageSpan(self, span)

    def ended(self) -> None:
        self._current = self._context

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._current)
        return carrier


def _known(attributes: SpanAttributes) -> dict[str, Any]:
    return {_ATTRIBUTES[name]: value for name, value in attributes.items() if value is not None}


class _StageSpan:
    """See `StageSpan`."""

    def __init__(self, request: _RequestTrace, span: trace.Span) -> None:
        self._request = request
        self._span = span

    def end(self, attributes: SpanAttributes, error: BaseException | None) -> None:
        self._request.ended()
        self._span.set_attributes(_known(attributes))
        if error is not None:
            # The class or code alone: the text may hold what a provider said.
            kind = error.code if isinstance(error, RagError) else type(error).__name__
            self._span.set_attribute("error.type", kind)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
