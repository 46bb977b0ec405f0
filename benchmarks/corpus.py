"""Indexes of any size, made of real text and kept in data/, for the service and for the naive one.

Documents are drawn from pieces of SciFact's abstracts and SQuAD's paragraphs, so that words are as frequent
as in real text and no two chunks are the same; the service's own chunker cuts them. Both sides get the same
chunks with the same vectors.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import MetadataMode, TextNode

from app.bm25 import LengthCounter
from app.chunking import Chunker, Chunking
from app.documents import Document
from app.embeddings.fingerprint import Fingerprint
from app.embeddings.local import DIMENSIONS, LocalEmbedding
from app.pages import Page, markdown_headings
from app.schemas import DocumentRecord, DocumentStatus
from app.settings import ChunkUnit, EmbeddingProvider
from app.snapshots import ChunkingInfo, Manifest, SnapshotStore
from app.stores.edge import ENGINE_VERSION, EdgeVectorStore
from benchmarks import datasets
from benchmarks.datasets import ROOT
from benchmarks.naive import NaiveIndex

_DATA = ROOT / "benchmarks" / "data"
_SEED = 20261120
_PIECE_WORDS = 75
_PIECES_A_DOCUMENT = 16
_CHUNKING = Chunking(size=1000, overlap=100, unit=ChunkUnit.CHARACTERS)
_BATCH = 1000
# Whatever decides what stands in an index. A kept one that was made by other code is not used again.
_MADE_BY = (
    "app/bm25.py",
    "app/chunking.py",
    "app/snapshots.py",
    "app/stores/edge.py",
    "benchmarks/corpus.py",
)


def service_index(chunks: int) -> Path:
    """An index directory of the service with so many chunks."""
    return _kept(f"service-{chunks}", lambda folder: _build_service(folder, chunks))


def naive_index(chunks: int) -> Path:
    """A storage directory of the naive service with so many chunks."""
    return _kept(f"naive-{chunks}", lambda folder: _build_naive(folder, chunks))


def questions(count: int) -> list[str]:
    """Things to ask; the first is a quotation from the first chunk, so that it is answered at any size."""
    quotation = " ".join(next(_nodes()).text.split()[:12])
    return [quotation, *islice(datasets.scifact().queries.values(), count - 1)]


def _kept(name: str, build: Callable[[Path], None]) -> Path:
    code = b"".join((ROOT / path).read_bytes() for path in _MADE_BY)
    folder = _DATA / f"{name}-{hashlib.sha256(code).hexdigest()[:8]}"
    if not folder.exists():
        for outdated in _DATA.glob(f"{name}-*"):
            shutil.rmtree(outdated)
        print(f"  building {name}", flush=True)
        aside = folder.with_suffix(".building")
        aside.mkdir(parents=True)
        build(aside)
        aside.rename(folder)
    return folder


def _build_service(folder: Path, chunks: int) -> None:
    nodes = list(islice(_nodes(), chunks))
    lengths = LengthCounter()
    tokens = sum(lengths.count(node.get_content(MetadataMode.EMBED)) for node in nodes)
    embedding = LocalEmbedding()
    snapshots = SnapshotStore(folder, keep=1)
    with snapshots.writer(), snapshots.stage() as staging:
        store = EdgeVectorStore.create(
            staging.path, dimensions=DIMENSIONS, average_length=tokens / len(nodes)
        )
        for start in range(0, len(nodes), _BATCH):
            store.add(_embedded(nodes[start : start + _BATCH], embedding))
        store.save()
        store.close()
        records = [_record(name) for name in dict.fromkeys(node.metadata["document"] for node in nodes)]
        staging.write_documents(records)
        manifest = Manifest(
            id=staging.id,
            built_at=staging.built_at,
            engine=ENGINE_VERSION,
            embedding=Fingerprint(
                provider=EmbeddingProvider.LOCAL, model=embedding.model_name, dimensions=DIMENSIONS
            ),
            chunking=ChunkingInfo(size=_CHUNKING.size, overlap=_CHUNKING.overlap, unit=_CHUNKING.unit),
            documents=len(records),
            unread_documents=0,
            chunks=len(nodes),
        )
        snapshots.publish(staging, manifest)


def _build_naive(folder: Path, chunks: int) -> None:
    embedding = LocalEmbedding()
    nodes = _embedded(list(islice(_nodes(), chunks)), embedding)
    NaiveIndex.of_nodes(nodes, embedding).save(folder)


def _embedded(nodes: list[TextNode], embedding: BaseEmbedding) -> list[TextNode]:
    vectors = embedding.get_text_embedding_batch([node.get_content(MetadataMode.EMBED) for node in nodes])
    return [
        node.model_copy(update={"embedding": vector}) for node, vector in zip(nodes, vectors, strict=True)
    ]


def _nodes() -> Iterator[TextNode]:
    """Chunks without end, always the same ones, each different from the others."""
    drawn = random.Random(_SEED)
    chunker = Chunker(chunking=_CHUNKING)
    seen: set[str] = set()
    for number in count():
        for node in chunker.split(_document(number, drawn.sample(_pieces(), _PIECES_A_DOCUMENT))):
            if node.text not in seen:
                seen.add(node.text)
                yield node


def _document(number: int, pieces: list[str]) -> Document:
    title = " ".join(pieces[0].split()[:6])
    text = f"# {title}\n\n" + "\n\n".join(pieces)
    page = Page(None, text, tuple(markdown_headings(text)))
    return Document(f"synthetic/{number:06d}.md", None, len(text), (page,), DocumentStatus.INDEXED)


@cache
def _pieces() -> list[str]:
    texts = [text for _, text in datasets.scifact().documents.values()]
    words = " ".join([*texts, *datasets.squad2().paragraphs.values()]).split()
    return [
        " ".join(words[start : start + _PIECE_WORDS])
        for start in range(0, len(words) - _PIECE_WORDS, _PIECE_WORDS)
    ]


def _record(name: str) -> DocumentRecord:
    return DocumentRecord(
        name=name, sha256=None, size=0, pages=None, chunks=0, status=DocumentStatus.INDEXED, problem=None
    )
