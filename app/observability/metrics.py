"""What `GET /metrics` shows."""

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
# Nothing was done for these: no or a wrong key, too slow, too large, too many, not ready.
_REFUSED = frozenset({401, 408, 413, 414, 429, 431, 503})
# A client may send any word as its method.
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RequestMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "rag_requests", "Requests that ended", ["route", "method", "status"], registry=registry
        )
        self._duration = Histogram(
            "rag_request_duration_seconds",
            "From a request's head to the end of its answer, a stream's too",
            ["route"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        stages = Histogram(
            "rag_stage_duration_seconds",
            "Of a question: embed, retrieve, generate; first_token is the time until it, from the beginning",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        answers = Counter("rag_answers", "By whether anything was found", ["status"], registry=registry)
        tokens = Counter("rag_tokens", "As the provider counts them", ["kind"], registry=registry)
        self._rejected = Counter(
            "rag_rejected_requests", "Refused, by the error's code", ["reason"], registry=registry
        )
        clients = Counter("rag_client_requests", "By the API key's name", ["client"], registry=registry)
        # Looking a label's value up costs 1 microsecond.
        self._client = lru_cache(maxsize=None)(clients.labels)
        # Made here, these are also shown before the first.
        self._stages = {stage: stages.labels(stage) for stage in _STAGES}
        self._answers = {status: answers.labels(status) for status in _ANSWERS}
        self._rejected.labels("overloaded")
        self._prompt_tokens, self._completion_tokens = tokens.labels("prompt"), tokens.labels("completion")
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def ended(self, route: str, method: str, status: int, seconds: float, context: RequestContext) -> None:
        """
        Args:
            route: its template, such as `/v1/models/{model}`.
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
    """
    Attributes:
        in_flight, queued: see `Admission`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "rag_requests_in_flight", "Being answered", registry=registry, multiprocess_mode="livesum"
        )
        self.queued = Gauge(
            "rag_requests_queued", "Waiting for a place", registry=registry, multiprocess_mode="livesum"
        )


class ProviderMetrics:
    """See `ProviderObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retries = Counter(
            "rag_provider_retries", "Attempts after the first", ["endpoint"], registry=registry
        )
        self._failures = Counter(
            "rag_provider_failures",
            "Attempts that failed, by the status, or what else it was",
            ["endpoint", "reason"],
            registry=registry,
        )
        self._breaker = Gauge(
            "rag_provider_breaker_open",
            "Workers that leave this endpoint alone, since it failed repeatedly",
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
    """See `IndexObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, mode: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self._served = gauge(
            _SERVED, "Workers that serve this index", "livesum", ["index", "embedding_model"]
        )
        self._built = gauge(
            "rag_index_built_timestamp_seconds", "When the oldest served one was built", "livemin"
        )
        self._documents = gauge("rag_index_documents", "In the served index", "livemostrecent")
        self._chunks = gauge("rag_index_chunks", "In the served index", "livemostrecent")
        self._swaps = Counter("rag_index_swaps", "Times that a worker replaced its index", registry=registry)
        self._failures = Counter(
            "rag_index_failures", "Times that a worker could not build or load an index", registry=registry
        )
        self._before: Gauge | None = None

    def served(self, info: IndexInfo) -> None:
        if self._before is not None:
            self._before.set(0)
            self._swaps.inc()
        self._before = self._served.labels(info.id, info.embedding_model)
        self._before.set(1)
        self._built.set(datetime.fromisoformat(info.built_at).timestamp())
        self._documents.set(info.documents)
        self._chunks.set(info.chunks)

    def failed(self) -> None:
        self._failures.inc()


class PoolMetrics:
    """See `PoolObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections = Gauge(
            "rag_database_connections",
            "Of all workers, to each database",
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
    """Of one application; each part is the observer of what it is named for.

    What has no label and nothing to count yet is shown as 0.
    """

    def __init__(self) -> None:
        # A third of the series would be times at which counters began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.requests = RequestMetrics(self._registry)
        self.load = LoadMetrics(self._registry)
        self.provider = ProviderMetrics(self._registry)
        self.index = IndexMetrics(self._registry)
        self.pools = PoolMetrics(self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of them, of all workers, in the format that a scraper asks for; and the media type of that.

        It reads the files of all workers: not for the event loop.
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
    """Without the indexes that nobody serves any more: labels cannot be removed where workers share files."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        for metric in self._collector.collect():
            if metric.name == _SERVED:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
