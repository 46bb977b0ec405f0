"""An index of the version before is served as it is, and the next run embeds nothing of it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build
from tests.support.older_index import CHUNK_ID, CONTENT, INDEX, NAME, write_older_index

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]


@pytest.fixture(params=["disk", "postgres"])
def older(request: pytest.FixtureRequest, settings: MakeSettings) -> Settings:
    """With that index, on the disk or in PostgreSQL."""
    place: dict[str, Any] = request.getfixturevalue("database") if request.param == "postgres" else {}
    made = settings(**place)
    write_older_index(made)
    return made


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_older_index_is_served(older: Settings, serve: Serve) -> None:
    """It has its documents and passages, and no file of a snapshot is changed."""
    before = contents(older.index.dir)
    client = serve(older)
    assert client.get("/health").json()["index"] == {
        "id": INDEX,
        "documents": 1,
        "chunks": 1,
        "built_at": "2026-11-20T10:15:00+00:00",
        "embedding_model": "wordllama-l2-supercat",
    }
    listed = client.get("/documents").json()
    (document,) = listed.pop("documents")
    assert listed == {"index": INDEX}
    assert document.pop("sha256")
    assert document == {
        **{"name": NAME, "size": len(CONTENT), "pages": None, "chunks": 1},
        **{"status": "indexed", "problem": None},
    }
    for filters in ({}, {"document": NAME}, {"heading": "Leave"}, {"format": "md"}):
        question = {"query": "How long is parental leave?", "filters": filters}
        (citation,) = client.post("/retrieve", json=question).json()["citations"]
        assert citation.pop("score") > 0.3
        assert citation == {
            **{"marker": 1, "document": NAME, "page": None, "heading": "Leave"},
            **{"text": "Parental leave lasts 16 weeks.", "chunk_id": CHUNK_ID},
        }
    assert contents(older.index.dir) == before


def test_the_next_run_reuses_an_older_index(older: Settings) -> None:
    """Documents are kept or renamed, and a changed one keeps the vectors of unchanged texts."""
    report = build(older)
    assert (report.published, report.index, report.embedded) == (False, INDEX, 0)
    document = older.documents.dir / NAME
    document.rename(document.with_name("moved.md"))
    report = build(older)
    assert (report.published, report.chunks, report.embedded) == (True, 1, 0)
    assert report.changes.renamed == [(NAME, "policies/moved.md")]
    document.with_name("moved.md").write_text(f"{CONTENT}\n# More\n\nTravel by train.\n")
    report = build(older)
    assert (report.published, report.chunks, report.embedded) == (True, 2, 1)
