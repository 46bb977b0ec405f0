"""The forms in which an index is kept, literally: renaming a field of the program changes none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.domain.chunk import Chunk, ChunkUnit, text_hash
from app.domain.document import Document, DocumentStatus
from app.domain.fingerprint import Fingerprint
from app.storage.chunks import Entry, StoredChunk
from app.storage.disk.manifest_file import read_manifest, write_manifest
from app.storage.disk.payloads import from_payload, to_payload
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.manifest import FileInfo, IndexSummary, Manifest
from app.storage.postgres.database import Database
from app.storage.postgres.generations import Generations
from app.storage.postgres.rows import COLUMNS, chunk_of_row, row_of
from app.storage.postgres.schema import migrate
from app.storage.stored_forms import decode_document, encode_document
from app.text.bm25 import TermCounts
from app.text.chunking import Chunking
from tests.support.made_snapshots import fill, manifest_of
from tests.support.timing import PATIENT

MANIFEST = Manifest(
    id="20261120T101500Z-5f3a9c",
    built_at="2026-11-20T10:15:00+00:00",
    engine="test engine, layout 2",
    reader="test reader",
    embedding=Fingerprint("local", "test/model", 3),
    chunking=Chunking(1000, 100, ChunkUnit.CHARACTERS),
    documents=1,
    unread_documents=2,
    chunks=3,
    files={"engine/segment": FileInfo(size=4, digest="5f", mtime_ns=6)},
)
MANIFEST_JSON = b"""\
{
  "schema_version": 2,
  "id": "20261120T101500Z-5f3a9c",
  "built_at": "2026-11-20T10:15:00+00:00",
  "engine": "test engine, layout 2",
  "reader": "test reader",
  "embedding": {
    "provider": "local",
    "model": "test/model",
    "dimensions": 3
  },
  "chunking": {
    "size": 1000,
    "overlap": 100,
    "unit": "characters"
  },
  "documents": 1,
  "unread_documents": 2,
  "chunks": 3,
  "files": {
    "engine/segment": {
      "size": 4,
      "digest": "5f",
      "mtime_ns": 6
    }
  }
}"""

LEAVE = Document("policies/leave.pdf", "0a", 1, 2, 3, DocumentStatus.INDEXED, None)
LEAVE_JSON = (
    b'{"name":"policies/leave.pdf","sha256":"0a","size":1,"pages":2,"chunks":3,"status":"indexed",'
    b'"problem":null}'
)
# A name with what JSON escapes, and what takes several bytes.
SCAN = Document('congés },{ \u2028\a"\\\n日本', None, 0, None, 0, DocumentStatus.NEEDS_OCR, "no text")
SCAN_JSON = (
    b'{"name":"cong\xc3\xa9s },{ \xe2\x80\xa8\\u0007\\"\\\\\\n\xe6\x97\xa5\xe6\x9c\xac","sha256":null,'
    b'"size":0,"pages":null,"chunks":0,"status":"needs_ocr","problem":"no text"}'
)

CHUNK = StoredChunk.of(
    Chunk(
        document="policies/Leave.PDF",
        page=3,
        heading="Leave > Parental",
        text="Sixteen weeks.",
        start=10,
        end=24,
        text_hash=text_hash("Leave > Parental\nSixteen weeks."),
        occurrence=2,
    )
)
CHUNK_ID = "9c8ee343-306b-5f27-a990-a11b213fc962"
CHUNK_HASH = "aa1d0e22bdcb363451a5f0b005001b42"
METADATA = {"document": "policies/Leave.PDF", "format": "pdf", "page": 3, "heading": "Leave > Parental"}


def test_the_manifest_file_has_this_content(tmp_path: Path) -> None:
    """Every byte of it is compared."""
    write_manifest(tmp_path, MANIFEST)
    assert (tmp_path / "manifest.json").read_bytes() == MANIFEST_JSON
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(("document", "line"), [(LEAVE, LEAVE_JSON), (SCAN, SCAN_JSON)])
def test_a_stored_document_has_this_form(document: Document, line: bytes) -> None:
    assert encode_document(document) == line
    assert decode_document(orjson.loads(line)) == document


def test_the_file_of_documents_has_this_content(tmp_path: Path) -> None:
    """It has a line for each document, whatever characters are in its name."""
    store = SnapshotStore(tmp_path, keep=1)
    with store.writer(), store.stage() as staging:
        fill(staging)
        staging.write_documents([LEAVE, SCAN])
        snapshot = store.seal(staging, manifest_of(staging))
        assert (staging.path / "documents.jsonl").read_bytes() == LEAVE_JSON + b"\n" + SCAN_JSON + b"\n"
        assert list(snapshot.documents()) == [LEAVE, SCAN]


@pytest.mark.parametrize("documents", [[], [LEAVE], [LEAVE, SCAN]])
def test_the_row_of_a_generation_has_this_form(database: dict[str, Any], documents: list[Document]) -> None:
    """The manifest equals that of the file, without files; the documents are one array, without blanks."""
    place = Database(database["database_url"], database["db_schema"], PATIENT.database)
    manifest = replace(MANIFEST, files={})
    with place.connect("test") as connection:
        migrate(connection, place)
        generations = Generations(connection, place)
        generations.create_chunks(manifest.id, dimensions=3, average_length=1.0)
        generations.publish(manifest, documents)
        statement = f'SELECT id, manifest, documents, last_served FROM "{place.schema}".generations'
        (row,) = connection.execute(statement.encode()).fetchall()
        opened = generations.open(manifest.id)
    lines = {LEAVE: LEAVE_JSON, SCAN: SCAN_JSON}
    assert row[0] == manifest.id
    assert row[1] == orjson.loads(MANIFEST_JSON) | {"files": {}}
    assert row[2] == b"[" + b",".join(lines[document] for document in documents) + b"]"
    assert opened.manifest == manifest
    assert list(opened.documents()) == documents


def test_the_payload_of_a_chunk_has_this_form() -> None:
    """The order of the fields is that in which the engine on disk writes them."""
    payload = to_payload(CHUNK, length=4)
    assert list(payload.items()) == [
        ("id", CHUNK_ID),
        ("text", "Sixteen weeks."),
        ("ref_doc_id", "policies/Leave.PDF"),
        ("start", 10),
        ("end", 24),
        ("metadata", METADATA),
        ("text_hash", CHUNK_HASH),
        ("occurrence", 2),
        ("length", 4),
        (
            "labels",
            [
                'document="policies/Leave.PDF"',
                'format="pdf"',
                "page=3",
                'heading="Leave > Parental"',
            ],
        ),
    ]
    assert from_payload(payload) == CHUNK


def test_the_row_of_a_chunk_has_this_form() -> None:
    row = dict(zip(COLUMNS, row_of(Entry(CHUNK, [3.0, 4.0], TermCounts([7], [4])), 4.0), strict=True))
    row["metadata"] = row["metadata"].obj
    assert {name: row[name] for name in list(row)[:9]} == {
        "id": CHUNK_ID,
        "ref_doc_id": "policies/Leave.PDF",
        "text": "Sixteen weeks.",
        "start_char": 10,
        "end_char": 24,
        "metadata": METADATA,
        "text_hash": CHUNK_HASH,
        "occurrence": 2,
        "length": 4,
    }
    assert list(COLUMNS)[9:] == ["embedding", "terms", "weights"]
    assert chunk_of_row(list(row.values())[:8]) == CHUNK


def test_a_listed_index_has_this_json() -> None:
    """Programs read it from `rag-service reindex --list --json`."""
    summary = IndexSummary("a", True, "2026-11-20T10:15:00+00:00", 1, 2, MANIFEST.embedding, 3)
    assert summary.as_json() == (
        '{"id":"a","current":true,"built_at":"2026-11-20T10:15:00+00:00","documents":1,"chunks":2,'
        '"embedding":{"provider":"local","model":"test/model","dimensions":3},"bytes":3,"problem":null}'
    )
    assert IndexSummary("a", False, problem="é").as_json() == (
        '{"id":"a","current":false,"built_at":null,"documents":null,"chunks":null,"embedding":null,'
        '"bytes":null,"problem":"é"}'
    )
