"""Vectors that a provider was paid for, kept in the database for the next run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from app.domain.vectors import Vector

# Of a row, besides the vector.
_OVERHEAD = 100

_TRIM = """
DELETE FROM {0} e USING (
    SELECT scope, text_hash, sum(length(vector) + %s) OVER (ORDER BY kept DESC, text_hash) AS size FROM {0}
) s
WHERE (s.scope, s.text_hash) = (e.scope, e.text_hash) AND size > %s
"""


class PostgresEmbeddingCache:
    """Vectors by scope and hash of the text.

    Args:
        connection: None where there are no tables yet: then nothing is known.
    """

    def __init__(self, connection: psycopg.Connection | None, table: sql.Identifier) -> None:
        self._connection = connection
        self._table = table

    def known(self, scope: str, hashes: Iterable[bytes]) -> set[bytes]:
        """Return the hashes of those texts that have a vector."""
        rows = self._execute(
            "SELECT text_hash FROM {} WHERE scope = %s AND text_hash = ANY(%s)", [scope, list(hashes)]
        )
        return {hashed for (hashed,) in rows}

    def get(self, scope: str, hashes: Iterable[bytes]) -> dict[bytes, Vector]:
        """Return the vectors of those texts that have one, as read-only arrays."""
        rows = self._execute(
            "SELECT text_hash, vector FROM {} WHERE scope = %s AND text_hash = ANY(%s)",
            [scope, list(hashes)],
        )
        return {hashed: np.frombuffer(vector, dtype=np.float32) for hashed, vector in rows}

    def put(self, scope: str, items: Iterable[tuple[bytes, Vector]]) -> None:
        """Keep vectors; a text's later vector replaces its earlier one."""
        hashes, vectors = [], []
        for hashed, vector in items:
            hashes.append(hashed)
            vectors.append(np.asarray(vector, dtype=np.float32).tobytes())
        self._execute(
            "INSERT INTO {} (scope, text_hash, vector) SELECT %s, * FROM unnest(%s::bytea[], %s::bytea[]) "
            "ON CONFLICT (scope, text_hash) DO UPDATE SET vector = excluded.vector, kept = now()",
            [scope, hashes, vectors],
        )

    def forget(self, scope: str) -> None:
        """Keep none of a scope, such as when its model has turned out to be another one."""
        self._execute("DELETE FROM {} WHERE scope = %s", [scope])

    def trim(self, max_bytes: int) -> None:
        """Keep about so many bytes, of the newest vectors."""
        self._execute(_TRIM, [_OVERHEAD, max_bytes])

    def _execute(self, statement: str, values: list[Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        cursor = self._connection.execute(sql.SQL(statement).format(self._table), values, binary=True)
        return cursor.fetchall() if cursor.description else []
