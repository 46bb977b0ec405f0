"""The report of a run, for programs."""

from __future__ import annotations

import json

from app.domain.document import Document, DocumentStatus
from app.indexing.changes import Changes
from app.indexing.report import Report


def test_the_json_of_a_report_has_these_fields() -> None:
    """Renaming a field of the program changes none of them."""
    documents = [
        Document("a.md", "0a", 1, None, 2, DocumentStatus.INDEXED, None),
        Document("b.pdf", "0b", 3, None, 0, DocumentStatus.UNREADABLE, "not a valid PDF file"),
    ]
    report = Report(
        index="20261120T101500Z-5f3a9c",
        planned=False,
        published=True,
        changes=Changes(added=["a.md"], changed=["b.pdf"], renamed=[("c.md", "d.md")], removed=["e.md"]),
        documents=documents,
        chunks=2,
        embedded=1,
        tokens=5,
        cost=0.0000014,
        seconds=0.12345,
    )
    assert json.loads(report.as_json()) == {
        "index": "20261120T101500Z-5f3a9c",
        "planned": False,
        "published": True,
        "documents": 1,
        "chunks": 2,
        "added": ["a.md"],
        "changed": ["b.pdf"],
        "renamed": [{"from": "c.md", "to": "d.md"}],
        "removed": ["e.md"],
        "unread": [
            {
                "name": "b.pdf",
                "sha256": "0b",
                "size": 3,
                "pages": None,
                "chunks": 0,
                "status": "unreadable",
                "problem": "not a valid PDF file",
            }
        ],
        "embedded": 1,
        "tokens": 5,
        "cost_usd": 0.000001,
        "seconds": 0.123,
        "refused": None,
    }
