"""An index as commit c14af35 wrote it, spelt out: nothing of what writes indexes today is used to make it.

It has one document with one chunk. What is not spelt out are numbers: vectors, terms and their weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import qdrant_edge as qdrant
from blake3 import blake3

from app.config.settings import Settings
from app.documents.extraction import READER_VERSION
from app.embeddings.static_model import StaticModel
from app.text.bm25 import TermCounter, TermCounts, weights
from tests.support.stored_in_postgres import database_of

INDEX = "20261120T101500Z-5f3a9c"
NAME = "policies/leave.md"
CONTENT = "# Leave\n\nParental leave lasts 16 weeks.\n"
CHUNK_ID = "af8f6b68-e5b6-5e55-a899-aeabb2619aa9"
TEXT_HASH = "5cff1ce40a2c49d603b1ac23a09a377e"

_EMBEDDED = "Leave\nParental leave lasts 16 weeks."
_DOCUMENT = (
    f'{{"name":"{NAME}","sha256":"{hashlib.sha256(CONTENT.encode()).hexdigest()}","size":{len(CONTENT)},'
    '"pages":null,"chunks":1,"status":"indexed","problem":null}'
)
_METADATA = {"document": NAME, "format": "md", "page": None, "heading": "Leave"}
_PAYLOAD = {
    "id": CHUNK_ID,
    "text": "Parental leave lasts 16 weeks.",
    "ref_doc_id": NAME,
    "start": 9,
    "end": 39,
    "metadata": _METADATA,
    "text_hash": TEXT_HASH,
    "occurrence": 1,
}
_LABELS = ['document="policies/leave.md"', 'format="md"', 'heading="Leave"']
# A file's digest is that of its blocks that are not zero, each after its offset.
_BLOCK = 64 * 1024

_CHUNKS = """
CREATE TABLE {schema}."chunks_{index}" (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    ref_doc_id text COLLATE "C",
    text text NOT NULL,
    start_char int,
    end_char int,
    metadata jsonb NOT NULL,
    text_hash text COLLATE "C" NOT NULL,
    occurrence int NOT NULL,
    length int NOT NULL,
    embedding halfvec(256) NOT NULL,
    terms int[] NOT NULL,
    weights sparsevec NOT NULL
)
"""
_TABLES = """
CREATE TABLE {schema}.generations (
    id text COLLATE "C" PRIMARY KEY, manifest jsonb NOT NULL, documents bytea NOT NULL,
    last_served timestamptz
);
CREATE TABLE {schema}.statistics (
    id text COLLATE "C" PRIMARY KEY, chunks int NOT NULL, terms bytea NOT NULL,
    average_length float8 NOT NULL, tokens bigint NOT NULL
);
CREATE TABLE {schema}.served (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), id text NOT NULL REFERENCES {schema}.generations
);
CREATE TABLE {schema}.embeddings (
    scope text NOT NULL, text_hash bytea NOT NULL, vector bytea NOT NULL,
    kept timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (scope, text_hash)
);
CREATE TABLE {schema}.layout (version int NOT NULL);
INSERT INTO {schema}.layout VALUES (1)
"""


def write_older_index(settings: Settings) -> None:
    """Put the document into its folder, and the index to where the settings say."""
    document = settings.documents.dir / NAME
    document.parent.mkdir(parents=True)
    document.write_text(CONTENT)
    if settings.database.url is None:
        _write_snapshot(settings.index.dir)
    else:
        _write_generation(settings)


def _manifest(engine: str, files: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "id": INDEX,
        "built_at": "2026-11-20T10:15:00+00:00",
        "engine": engine,
        "reader": READER_VERSION,
        "embedding": {"provider": "local", "model": "wordllama-l2-supercat", "dimensions": 256},
        "chunking": {"size": 1000, "overlap": 100, "unit": "characters"},
        "documents": 1,
        "unread_documents": 0,
        "chunks": 1,
        "files": files,
    }


def _terms() -> TermCounts:
    terms, counts = TermCounter().count(_EMBEDDED)
    order = np.argsort(terms)
    return TermCounts([terms[place] for place in order], [counts[place] for place in order])


def _weights(terms: TermCounts) -> list[float]:
    return weights(terms.counts, length=terms.length, average_length=float(terms.length))


def _statistics(terms: TermCounts) -> np.ndarray:
    return np.array([terms.terms, [1] * len(terms.terms)], dtype=np.uint32)


def _write_snapshot(index_dir: Path) -> None:
    folder = index_dir / "snapshots" / INDEX
    (folder / "engine").mkdir(parents=True)
    terms = _terms()
    _write_engine(folder / "engine", terms)
    np.save(folder / "terms.npy", _statistics(terms), allow_pickle=False)
    numbers = [[_number(NAME), _number(TEXT_HASH), _number(CHUNK_ID)]]
    np.save(folder / "points.npy", np.array(numbers, dtype=np.uint64), allow_pickle=False)
    (folder / "store.json").write_text(
        f'{{"chunks": 1, "tokens": {terms.length}, "average_length": {terms.length}.0, '
        '"labeled": ["document", "format", "page", "heading"]}'
    )
    (folder / "documents.jsonl").write_text(f"{_DOCUMENT}\n")
    files = {path.relative_to(folder).as_posix(): _file(path) for path in folder.rglob("*") if path.is_file()}
    manifest = json.dumps(_manifest("qdrant-edge-py 0.9.0, layout 2", files), indent=2)
    (folder / "manifest.json").write_text(manifest)
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    (index_dir / "CURRENT").write_text(f"{INDEX}\n")


def _write_engine(folder: Path, terms: TermCounts) -> None:
    config = qdrant.EdgeConfig(
        vectors={"dense": qdrant.EdgeVectorParams(size=256, distance=qdrant.Distance.Cosine)},
        sparse_vectors={
            "bm25": qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf, memory=qdrant.Memory.Cold)
        },
        id_tracker_memory=qdrant.Memory.Cold,
        max_search_threads=1,
        wal_enabled=False,
    )
    engine = qdrant.EdgeShard.create(str(folder), config)
    labels = qdrant.KeywordIndexParams(memory=qdrant.Memory.Cold)
    engine.update(qdrant.UpdateOperation.create_field_index("labels", labels))
    vectors = {
        "dense": StaticModel().embed([_EMBEDDED])[0].tolist(),
        "bm25": qdrant.SparseVector(terms.terms, _weights(terms)),
    }
    payload = _PAYLOAD | {"length": terms.length, "labels": _LABELS}
    point = qdrant.Point(_number(CHUNK_ID), vectors, payload)
    engine.update(qdrant.UpdateOperation.upsert_points([point]))
    engine.flush()
    engine.optimize()
    engine.flush()
    engine.close()
    # The first load completes some files.
    qdrant.EdgeShard.load(str(folder)).close()


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _file(path: Path) -> dict[str, Any]:
    content, digest = path.read_bytes(), blake3()
    for offset in range(0, len(content), _BLOCK):
        block = content[offset : offset + _BLOCK]
        if block.strip(b"\0"):
            digest.update(offset.to_bytes(8, "big"))
            digest.update(block)
    return {"size": len(content), "digest": digest.hexdigest(), "mtime_ns": path.stat().st_mtime_ns}


def _write_generation(settings: Settings) -> None:
    database, terms = database_of(settings), _terms()
    vector = StaticModel().embed([_EMBEDDED])[0]
    sparse = ",".join(
        f"{term % 1_000_000_000 + 1}:{weight}"
        for term, weight in zip(terms.terms, _weights(terms), strict=True)
    )
    chunk = [
        *(CHUNK_ID, NAME, _PAYLOAD["text"], 9, 39, json.dumps(_METADATA), TEXT_HASH, 1, terms.length),
        str((vector / np.linalg.norm(vector)).tolist()),
        [int(np.uint32(term).view(np.int32)) for term in terms.terms],
        f"{{{sparse}}}/1000000000",
    ]
    names = {"schema": f'"{database.schema}"', "index": INDEX}
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

        def execute(statement: str, *values: Any) -> None:
            connection.execute(statement.format(**names).encode(), values or None)

        execute("CREATE SCHEMA {schema}")
        execute(_TABLES)
        execute(_CHUNKS)
        execute('INSERT INTO {schema}."chunks_{index}" VALUES (' + ", ".join(["%s"] * 12) + ")", *chunk)
        statistics = [INDEX, 1, _statistics(terms).tobytes(), float(terms.length), terms.length]
        execute("INSERT INTO {schema}.statistics VALUES (%s, %s, %s, %s, %s)", *statistics)
        manifest = json.dumps(_manifest("PostgreSQL with pgvector, layout 1", {}))
        generation = [INDEX, manifest, f"[{_DOCUMENT}]".encode()]
        execute("INSERT INTO {schema}.generations VALUES (%s, %s, %s)", *generation)
        execute("INSERT INTO {schema}.served (id) VALUES (%s)", INDEX)
