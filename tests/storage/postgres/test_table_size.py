"""What a table of chunks takes on the disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.storage.chunks import Entry, StoredChunk
from app.storage.postgres.chunk_table import ChunkTable, Hnsw
from app.storage.postgres.database import Database
from app.storage.postgres.schema import migrate
from app.text.bm25 import TermCounter
from tests.support.timing import PATIENT

_WORDS = [f"word{number}" for number in range(17)]


def _entries(number: int) -> list[Entry]:
    counter, generator = TermCounter(), np.random.default_rng(1)
    texts = [" ".join(generator.permutation(_WORDS * 4)) for _ in range(number)]
    return [
        Entry(
            StoredChunk(str(place), "a.md", text, 0, 1, {}, str(place), 0),
            generator.standard_normal(64).astype(np.float32),
            counter.count(text),
        )
        for place, text in enumerate(texts)
    ]


def _size(url: str, schema: str, index_id: str, entries: list[Entry], average_length: float) -> int:
    database = Database(url, schema, PATIENT.database)
    with database.connect("test") as connection:
        migrate(connection, database)
        table = ChunkTable.create(
            connection, database, index_id, dimensions=64, average_length=average_length
        )
        table.add(entries)
        table.build_indexes(Hnsw())
        assert table.count() == len(entries)
        row = connection.execute(
            "SELECT pg_table_size(oid) FROM pg_class WHERE relname = %s", [f"chunks_{index_id}"]
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_rewritten_weights_waste_no_disk_space(database: dict[str, Any]) -> None:
    """They are rewritten if the first chunks, from which the average length is estimated, are short."""
    entries = _entries(300)
    average = sum(entry.terms.length for entry in entries) / len(entries)
    where = database["database_url"], database["db_schema"]
    assert _size(*where, "drifted", entries, average / 2) <= _size(*where, "steady", entries, average) * 1.1
