"""Traces with OpenTelemetry, imported only if tracing is on: see app/bootstrap/tracing.py.

FastAPI makes the span of a request, below that of its caller. The spans of its stages are made here, named by
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

# The provider of a stage that runs in this process.
LOCAL = "local"

_SERVICE = "rag-service"
# Short, so that an unreachable collector does not keep a server from stopping.
_EXPORT_TIMEOUT_S = 3
# Without baggage, which must not leave the caller's own systems.
_PROPAGATOR = TraceContextTextMapPropagator()

_OPERATIONS = {"embed": "embeddings", "retrieve": "retrieval", "generate": "chat"}
_ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "dimensions": "gen_ai.embeddings.dimension.count",
    "index": "gen_ai.data_source.id",
    "top_k": "gen_ai.request.top_k",
    "response_model": "gen_ai.response.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
}


class _NoQuery(SpanProcessor):
    """A processor that drops query strings: the service reads none, and they may contain secrets."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "")


class Tracing:
    """The exporter of a process's spans; sampling and resource attributes are set by OTEL_ variables.

    Args:
        endpoint: the address of an OTLP collector, without `/v1/traces`.
        providers: the value of `gen_ai.provider.name` for each stage.
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
        """Make the configuration with which FastAPI traces all requests except the excluded ones."""
        return {
            "tracer_provider": self._spans,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": exclude,
        }

    def begin_request(self) -> None:
        """Start the trace of the current request, inside the span that FastAPI has made."""
        context = otel_context.get_current()
        trace.get_current_span(context).set_attribute("rag.request_id", request_id.get())
        current_context().trace = _RequestTrace(self.tracer, self._providers, context)

    def close(self) -> None:
        """Send the remaining spans; it blocks."""
        self._spans.shutdown()


class _RequestTrace:
    """A `RequestTrace` in which stages follow each other, so that at most one span is open."""

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
            # An index's id is not part of the name, since it changes with each reindex.
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
    """A `StageSpan` of OpenTelemetry."""

    def __init__(self, request: _RequestTrace, span: trace.Span) -> None:
        self._request = request
        self._span = span

    def end(self, attributes: SpanAttributes, error: BaseException | None) -> None:
        self._request.ended()
        self._span.set_attributes(_known(attributes))
        if error is not None:
            # Only the code or class: the text may quote the provider.
            kind = error.code if isinstance(error, RagError) else type(error).__name__
            self._span.set_attribute("error.type", kind)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
