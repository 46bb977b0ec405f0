"""The metrics that `GET /metrics` shows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.domain.index import IndexInfo
from app.observability.request_context import RequestContext
from app.observability.worker_metrics import FOLDER, forget_dead_workers

_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_S = (0.001, 0.0025, *_REQUEST_S)

_SERVED = "rag_index_served"

_STAGES = ("embed", "retrieve", "generate", "first_token")
_ANSWERS = ("answered", "no_context")
# Statuses of requests that were rejected before any work: bad key, too slow, too large, too many, not ready.
_REFUSED = frozenset({401, 408, 413, 414, 429, 431, 503})
# Other methods share one label value, because a client may send any word as its method.
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RequestMetrics:
    """Counts, times and outcomes of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "rag_requests", "Completed requests", ["route", "method", "status"], registry=registry
        )
        self._duration = Histogram(
            "rag_request_duration_seconds",
            "Time from a request's head to the end of its response, also of a stream",
            ["route"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        stages = Histogram(
            "rag_stage_duration_seconds",
            "Time of each stage: embed, retrieve, generate; first_token is measured from the beginning",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        answers = Counter("rag_answers", "Answers by status", ["status"], registry=registry)
        tokens = Counter("rag_tokens", "Tokens as the provider counts them", ["kind"], registry=registry)
        self._rejected = Counter(
            "rag_rejected_requests", "Rejected requests by error code", ["reason"], registry=registry
        )
        clients = Counter("rag_client_requests", "Requests by API key name", ["client"], registry=registry)
        # Cached, because looking up a label's value takes 1 µs.
        self._client = lru_cache(maxsize=None)(clients.labels)
        # Made here, so that these are shown as 0 before they first occur.
        self._stages = {stage: stages.labels(stage) for stage in _STAGES}
        self._answers = {status: answers.labels(status) for status in _ANSWERS}
        self._rejected.labels("overloaded")
        self._prompt_tokens, self._completion_tokens = tokens.labels("prompt"), tokens.labels("completion")
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def ended(self, route: str, method: str, status: int, seconds: float, context: RequestContext) -> None:
        """Record a completed request.

        Args:
            route: the route's template, such as `/v1/models/{model}`.
        """
        key = (route, method if method in _METHODS else "other", status)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (self._requests.labels(*key), self._duration.labels(route))
        known[0].inc()
        known[1].observe(seconds)
        if context.client is not None:
            self._client(context.client).inc()
        if status in _REFUSED and context.outcome is not None:
            self._rejected.labels(context.outcome).inc()
        self._noted(context)

    def _noted(self, context: RequestContext) -> None:
        for stage, milliseconds in context.stages.items():
            self._stages[stage].observe(milliseconds / 1000)
        if context.first_token_ms is not None:
            self._stages["first_token"].observe(context.first_token_ms / 1000)
        if context.usage is not None:
            self._prompt_tokens.inc(context.usage.prompt_tokens)
            self._completion_tokens.inc(context.usage.completion_tokens)
        if (answers := self._answers.get(context.outcome or "")) is not None:
            answers.inc()


class LoadMetrics:
    """Gauges of admission control.

    Attributes:
        in_flight: requests being answered.
        queued: requests waiting to be admitted.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "rag_requests_in_flight",
            "Requests being answered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queued = Gauge(
            "rag_requests_queued", "Requests waiting", registry=registry, multiprocess_mode="livesum"
        )


class ProviderMetrics:
    """Metrics of calls to the provider; implements `ProviderObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retries = Counter(
            "rag_provider_retries", "Attempts after the first", ["endpoint"], registry=registry
        )
        self._failures = Counter(
            "rag_provider_failures",
            "Failed attempts by status, timeout or failed",
            ["endpoint", "reason"],
            registry=registry,
        )
        self._breaker = Gauge(
            "rag_provider_breaker_open",
            "Workers whose circuit breaker is open",
            ["endpoint"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def endpoint(self, endpoint: str) -> None:
        self._retries.labels(endpoint)
        self._breaker.labels(endpoint).set(0)

    def retried(self, endpoint: str) -> None:
        self._retries.labels(endpoint).inc()

    def failed(self, endpoint: str, reason: str) -> None:
        self._failures.labels(endpoint, reason).inc()

    def breaker(self, endpoint: str, is_open: bool) -> None:
        self._breaker.labels(endpoint).set(is_open)


class IndexMetrics:
    """Metrics of the served index; implements `IndexObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, mode: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self._served = gauge(
            _SERVED, "Workers that serve this index", "livesum", ["index", "embedding_model"]
        )
        self._built = gauge(
            "rag_index_built_timestamp_seconds", "When the oldest served index was built", "livemin"
        )
        self._documents = gauge("rag_index_documents", "Documents in the served index", "livemostrecent")
        self._chunks = gauge("rag_index_chunks", "Chunks in the served index", "livemostrecent")
        self._swaps = Counter("rag_index_swaps", "Times that a worker replaced its index", registry=registry)
        self._failures = Counter(
            "rag_index_failures", "Times that a worker could not build or load an index", registry=registry
        )
        self._previous: Gauge | None = None

    def served(self, info: IndexInfo) -> None:
        """Record that an index is served from now on."""
        if self._previous is not None:
            self._previous.set(0)
            self._swaps.inc()
        self._previous = self._served.labels(info.id, info.embedding_model)
        self._previous.set(1)
        self._built.set(datetime.fromisoformat(info.built_at).timestamp())
        self._documents.set(info.documents)
        self._chunks.set(info.chunks)

    def failed(self) -> None:
        self._failures.inc()


class PoolMetrics:
    """Metrics of the pools of database connections; implements `PoolObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections = Gauge(
            "rag_database_connections",
            "Connections of all workers to each database",
            ["server", "state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "rag_database_waiting",
            "Searches that wait for a connection",
            ["server"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def pool(self, server: str, used: int, idle: int, waiting: int) -> None:
        self._connections.labels(server, "used").set(used)
        self._connections.labels(server, "idle").set(idle)
        self._waiting.labels(server).set(waiting)


class Metrics:
    """The metrics of one application; each attribute observes the part that it is named after.

    A metric without labels is shown as 0 before it first changes.
    """

    def __init__(self) -> None:
        # Otherwise a third of the series would be the creation times of counters.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.requests = RequestMetrics(self._registry)
        self.load = LoadMetrics(self._registry)
        self.provider = ProviderMetrics(self._registry)
        self.index = IndexMetrics(self._registry)
        self.pools = PoolMetrics(self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Render the metrics of all workers in the format that a scraper accepts, and name its media type.

        It blocks, because it reads the files of all workers.
        """
        encode, media_type = choose_encoder(accept)
        registry = CollectorRegistry()
        registry.register(_WithoutReplaced(self._collector()))
        return encode(registry), media_type

    def _collector(self) -> Collector:
        if folder := os.environ.get(FOLDER):
            forget_dead_workers(Path(folder))
            return MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
        return self._registry


class _WithoutReplaced(Collector):
    """A filter that drops replaced indexes: labels cannot be removed while workers share files."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        for metric in self._collector.collect():
            if metric.name == _SERVED:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
