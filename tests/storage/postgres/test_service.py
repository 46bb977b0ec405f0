"""The service with its index in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from app.config.settings import Settings
from tests.conftest import build, write_two_documents
from tests.support.serving import wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]


def test_an_index_in_postgresql_is_built_queried_and_swapped(
    settings: MakeSettings, serve: Serve, database: dict[str, Any]
) -> None:
    made = settings(**database)
    write_two_documents(made.documents.dir)
    first = build(made)
    client = serve(made)
    answer = client.post("/query", json={"query": "How long is parental leave?"}).json()
    assert (answer["index"], answer["sources"][0]) == (first.index, "leave.md")
    assert "16 weeks" in answer["answer"]
    assert [each["name"] for each in client.get("/documents").json()["documents"]] == [
        "leave.md",
        "travel.md",
    ]

    (made.documents.dir / "leave.md").write_text("Parental leave lasts 20 weeks.")
    second = build(made)
    assert (second.changes.changed, second.embedded) == (["leave.md"], 1)
    wait_for(lambda: client.get("/health").json()["index"]["id"] == second.index, "the swap")
    answer = client.post("/query", json={"query": "How long is parental leave?"}).json()
    assert "20 weeks" in answer["answer"]
