"""Indexes of any size, made of real text and kept in data/, for the service and for the naive service.

Documents are drawn from pieces of SciFact's abstracts and SQuAD's paragraphs, so that words are as frequent
as in real text and no two chunks are the same. The service's own chunker cuts them, and both sides get the
same chunks with the same vectors.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path

from app.config.choices import EmbeddingProvider
from app.documents.extraction import READER_VERSION
from app.documents.pages import Page, markdown_headings
from app.domain.chunk import Chunk, ChunkUnit
from app.domain.document import Document, DocumentStatus
from app.domain.fingerprint import Fingerprint
from app.embeddings.local import LocalEmbedding
from app.embeddings.static_model import DIMENSIONS, MODEL, StaticModel
from app.storage.chunks import Entry, StoredChunk
from app.storage.disk.shard import ENGINE_VERSION, ChunkShard
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.manifest import Manifest
from app.storage.nodes import node_of
from app.text.bm25 import TermCounter
from app.text.chunking import Chunking, cut
from benchmarks import datasets
from benchmarks.datasets import ROOT
from benchmarks.naive import NaiveIndex

_DATA = ROOT / "benchmarks" / "data"
_SEED = 20261120
_PIECE_WORDS = 75
_PIECES_A_DOCUMENT = 16
_CHUNKING = Chunking(size=1000, overlap=100, unit=ChunkUnit.CHARACTERS)
_BATCH = 1000
# The code that determines the contents of an index. A kept index that was made by other code is rebuilt.
_MADE_BY = (
    "app/text/bm25.py",
    "app/text/chunking.py",
    "app/storage/disk/files.py",
    "app/storage/manifest.py",
    "app/storage/stored_forms.py",
    "app/storage/disk/chunk_points.py",
    "app/storage/disk/shard.py",
    "app/storage/disk/payloads.py",
    "app/storage/chunks.py",
    "benchmarks/corpus.py",
)


def service_index(chunks: int) -> Path:
    """Return an index directory of the service with so many chunks, building it if needed."""
    return _kept(f"service-{chunks}", lambda folder: _build_service(folder, chunks))


def entries(chunks: int) -> list[Entry]:
    """Make the chunks of `service_index`, in the order in which they were added."""
    made = list(islice(_chunks(), chunks))
    counter = TermCounter()
    vectors = StaticModel().embed([chunk.embed_text for chunk in made])
    return [
        Entry(StoredChunk.of(chunk), vector, counter.count(chunk.embed_text))
        for chunk, vector in zip(made, vectors, strict=True)
    ]


def naive_index(chunks: int) -> Path:
    """Return a storage directory of the naive service with so many chunks, building it if needed."""
    return _kept(f"naive-{chunks}", lambda folder: _build_naive(folder, chunks))


def questions(count: int) -> list[str]:
    """Return questions; the first one quotes the first chunk, so that an index of any size answers it."""
    quotation = " ".join(next(_chunks()).text.split()[:12])
    return [quotation, *islice(datasets.scifact().queries.values(), count - 1)]


def documents() -> Iterator[tuple[str, str]]:
    """Yield names and Markdown texts without end, always the same ones; each gives about 10 chunks."""
    drawn = random.Random(_SEED)
    for number in count():
        pieces = drawn.sample(_pieces(), _PIECES_A_DOCUMENT)
        title = " ".join(pieces[0].split()[:6])
        yield f"synthetic/{number:06d}.md", f"# {title}\n\n" + "\n\n".join(pieces)


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


def _build_service(folder: Path, size: int) -> None:
    made = entries(size)
    snapshots = SnapshotStore(folder, keep=1)
    with snapshots.writer(), snapshots.stage() as staging:
        average_length = sum(entry.terms.length for entry in made) / size
        shard = ChunkShard.create(staging.path, dimensions=DIMENSIONS, average_length=average_length)
        for start in range(0, size, _BATCH):
            shard.add(made[start : start + _BATCH])
        shard.save()
        shard.close()
        names = dict.fromkeys(str(entry.chunk.ref_doc_id) for entry in made)
        records = [_record(name) for name in names]
        staging.write_documents(records)
        manifest = Manifest(
            id=staging.id,
            built_at=staging.built_at,
            engine=ENGINE_VERSION,
            reader=READER_VERSION,
            embedding=Fingerprint(provider=EmbeddingProvider.LOCAL, model=MODEL, dimensions=DIMENSIONS),
            chunking=_CHUNKING,
            documents=len(records),
            unread_documents=0,
            chunks=size,
        )
        snapshots.seal(staging, manifest)
        snapshots.publish(staging)


def _build_naive(folder: Path, size: int) -> None:
    embedding = LocalEmbedding()
    chunks = list(islice(_chunks(), size))
    vectors = embedding.embed([chunk.embed_text for chunk in chunks]).tolist()
    nodes = [
        node_of(StoredChunk.of(chunk)).model_copy(update={"embedding": vector})
        for chunk, vector in zip(chunks, vectors, strict=True)
    ]
    NaiveIndex.of_nodes(nodes, embedding).save(folder)


def _chunks() -> Iterator[Chunk]:
    """Yield distinct chunks without end."""
    seen: set[str] = set()
    for name, text in documents():
        page = Page(None, text, tuple(markdown_headings(text)))
        for chunk in cut(name, (page,), _CHUNKING):
            if chunk.text not in seen:
                seen.add(chunk.text)
                yield chunk


@cache
def _pieces() -> list[str]:
    texts = [text for _, text in datasets.scifact().documents.values()]
    words = " ".join([*texts, *datasets.squad2().paragraphs.values()]).split()
    return [
        " ".join(words[start : start + _PIECE_WORDS])
        for start in range(0, len(words) - _PIECE_WORDS, _PIECE_WORDS)
    ]


def _record(name: str) -> Document:
    return Document(
        name=name, sha256=None, size=0, pages=None, chunks=0, status=DocumentStatus.INDEXED, problem=None
    )
