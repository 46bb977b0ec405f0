"""The sides of a comparison: each is a server with its requests, and the questions it has not had yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.documents.discovery import inspect, walk
from app.documents.limits import ReadingLimits
from app.documents.reader_pool import ReaderPool
from app.domain.chunk import ChunkUnit
from app.indexing.prepare import prepare
from app.storage.chunks import StoredChunk
from app.storage.nodes import node_of
from app.text.chunking import Chunking
from benchmarks.datasets import ROOT
from benchmarks.loadgen import Load, Result, Step, run_load
from benchmarks.naive import NaiveIndex
from benchmarks.naive_service import embedding_model, naive_service
from benchmarks.null_app import null_app
from benchmarks.processes import Replica
from benchmarks.report import Report
from benchmarks.service import indexed, openai_settings, served
from benchmarks.upstream import ANSWER_START, Provider, provider

_DOCUMENTS = ROOT / "documents"
# For loads that end with a number of requests.
_LIMIT_S = 600

_QUERY = Step("/query", '{"query":%s}', expected=('"answer":',))
_ANSWERED = replace(_QUERY, expected=('"status":"answered"', ANSWER_START))
_NAIVE = replace(_QUERY, expected=(ANSWER_START,))
_STREAMED = Step(
    "/query/stream",
    '{"query":%s}',
    expected=("event: answer", ANSWER_START, "data: [DONE]"),
    first='data: {"token"',
)
_EMBEDDING = Step(
    "/v1/embeddings",
    '{"model":"text-embedding-3-small","input":[%s],"encoding_format":"base64"}',
    expected=('"embedding":',),
)
_COMPLETION = Step(
    "/v1/chat/completions",
    '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":%s}]}',
    expected=("data: [DONE]",),
    first='"delta":{"content":',
)


@dataclass
class Side:
    """A running server under load.

    Attributes:
        asked: the number of questions that it has had.
    """

    name: str
    server: Replica
    steps: tuple[Step, ...]
    questions: Path
    asked: int = 0

    def load(self, users: int, seconds: float, **options: Any) -> Result:
        """Send new questions; `options` are fields of `Load`."""
        load = Load(
            port=self.server.port,
            questions=str(self.questions),
            skip=self.asked,
            steps=self.steps,
            users=users,
            seconds=seconds,
            **options,
        )
        result = run_load(load)
        self.asked += result.asked
        return result

    def cpu_ms(self, users: int, requests: int) -> tuple[float, Result]:
        """Measure the server's user and system time per query."""
        before = self.server.cpu_s()
        result = self.load(users, _LIMIT_S, requests=requests)
        return (self.server.cpu_s() - before) * 1000 / result.asked, result


@dataclass(frozen=True)
class Samples:
    """The sample corpus, indexed by the service and by the naive service, with a provider's embeddings."""

    index: Path
    storage: Path

    @classmethod
    @contextmanager
    def indexed(cls) -> Iterator[Samples]:
        """Index the sample corpus for both sides."""
        with (
            provider(Provider()) as upstream,
            indexed(_DOCUMENTS, **openai_settings(f"{upstream.url}/v1")) as index,
            TemporaryDirectory(prefix="rag-benchmark-") as storage,
        ):
            # The service's chunks for both, since LlamaIndex's own reader reads Office files as text.
            chunking = Chunking(size=1000, overlap=100, unit=ChunkUnit.CHARACTERS)
            reader = ReaderPool(
                workers=2,
                limits=ReadingLimits(timeout_s=60, memory_mb=1024, inflated_mb=512),
                read=partial(prepare, chunking=chunking, embed=False),
            )
            nodes = [
                node_of(StoredChunk.of(prepared.chunk))
                for document in reader.read_all(inspect(_DOCUMENTS, walk(_DOCUMENTS)))
                if document.content
                for prepared in document.content.chunks
            ]
            NaiveIndex.of_nodes(nodes, embedding_model(f"{upstream.url}/v1")).save(Path(storage))
            yield cls(index, Path(storage))


@contextmanager
def openai_side(index: Path, upstream: Replica, questions: Path, **settings: str) -> Iterator[Side]:
    """Run the service with a provider's models."""
    provided = openai_settings(f"{upstream.url}/v1")
    with served(index, **provided, **settings) as server:
        server.settle()
        yield Side("service", server, (_ANSWERED,), questions)


@contextmanager
def naive_side(samples: Samples, upstream: Replica, questions: Path) -> Iterator[Side]:
    """Run the naive service with a provider's models."""
    with naive_service(samples.storage, f"{upstream.url}/v1") as server:
        yield Side("naive", server, (_NAIVE,), questions)


@contextmanager
def keyless_side(index: Path, questions: Path, **settings: str) -> Iterator[Side]:
    """Run the service without a key."""
    with served(index, **settings) as server:
        yield Side("service", server, (_QUERY,), questions)


@contextmanager
def null_side(questions: Path, *, layers: bool = False) -> Iterator[Side]:
    """Run the null app, with or without the service's middleware."""
    with null_app(layers=layers) as server:
        yield Side("null app with all layers" if layers else "null app", server, (_QUERY,), questions)


def streaming(side: Side) -> Side:
    """Return a side with the same server, but with streamed answers."""
    return replace(side, steps=(_STREAMED,))


def direct_side(upstream: Replica, questions: Path) -> Side:
    """Make a side that sends the service's requests to the provider directly."""
    return Side("provider itself", upstream, (_EMBEDDING, _COMPLETION), questions)


def add_load(report: Report, name: str, result: Result, *, errors_at_most: float | None = None) -> None:
    """Add throughput, errors and latencies to a report."""
    report.add(f"{name}, throughput", result.throughput, "queries/s")
    add_errors(report, name, result, at_most=errors_at_most)
    if result.latency is not None:
        report.add(f"{name}, p50", result.latency.p50, "ms")
        report.add(f"{name}, p99", result.latency.p99, "ms")


def add_errors(report: Report, name: str, result: Result, *, at_most: float | None = None) -> None:
    """Add the number and kinds of errors to a report."""
    kinds = "".join(f"; {count} x {kind}" for kind, count in result.errors.items())
    report.add(f"{name}, errors", sum(result.errors.values()), f"of {result.asked:,}{kinds}", at_most=at_most)
