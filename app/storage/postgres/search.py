"""A search of the chunks: one statement, in which the dense ranking and BM25's are made and fused.

BM25 is computed, not PostgreSQL's `ts_rank`, which knows neither how rare a word is nor how long a text. A
chunk's weights of its terms are a `sparsevec`, the question's are the terms' inverse frequencies, and a score
is their inner product. Scored are the chunks that hold one of the question's rarest terms, found by GIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from pgvector import HalfVector
from psycopg import sql

from app.storage.chunks import FIELDS
from app.storage.postgres.filters import condition_of, joined
from app.storage.postgres.rows import CHUNK_COLUMNS, normalized, signed, sparse_vector, storable
from app.storage.postgres.statement import Condition, Statement
from app.text.bm25 import TermCounter, TermStatistics

# Of each ranking, before they are fused.
_CANDIDATES = 100
# So many chunks are scored by their words, and more only where the question's rarest word stands in more.
_SCORED = 3000

_DENSE = """
SELECT id, -(embedding <#> %s) AS score FROM {table} WHERE {wanted} ORDER BY embedding <#> %s LIMIT %s
"""
_LEXICAL = """
SELECT id, -(weights <#> %s) / %s AS score FROM {table} WHERE terms && %s::int4[] AND {wanted}
ORDER BY score DESC, id LIMIT %s
"""
_NOTHING = "SELECT NULL::text AS id, 0::float8 AS score WHERE false"
# As `app.storage.fusion` does it.
_FUSED = """
SELECT id, %s * greatest(coalesce(dense.score, farthest.score), 0) + %s * coalesce(lexical.score, 0) AS score
FROM dense FULL JOIN lexical USING (id)
CROSS JOIN (SELECT greatest(coalesce(min(score), 0), 0) AS score FROM dense) farthest
ORDER BY score DESC, id LIMIT %s
"""
_CHUNKS = """
SELECT {columns}, score FROM {found} JOIN {table} c USING (id) ORDER BY score DESC, c.id
"""
_COLUMNS = sql.SQL(", ").join([sql.Identifier("c", name) for name in CHUNK_COLUMNS])


@dataclass(frozen=True)
class Search:
    """Maker of the statements that search one table.

    Attributes:
        fields: of the metadata, by which chunks can be filtered.
    """

    table: sql.Identifier
    terms: TermStatistics
    counter: TermCounter
    dense_weight: float
    fields: Sequence[str] = FIELDS

    def statement(self, query: VectorStoreQuery) -> Statement:
        """Return a statement that selects `rows.CHUNK_COLUMNS` and the score; see `ChunkStore` for modes.

        Raises:
            ValueError: for a filter on a field that there is not.
            NotImplementedError: for another mode, or an operator that this store has no match for.
        """
        limit = query.hybrid_top_k or query.similarity_top_k
        wanted = self._wanted(query)
        if query.mode is VectorStoreQueryMode.DEFAULT:
            return self._chunks([("found", self._dense(query, limit, wanted))])
        if query.mode in {VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH}:
            return self._chunks([("found", self._lexical(query, query.sparse_top_k or limit, wanted))])
        if query.mode is not VectorStoreQueryMode.HYBRID:
            raise NotImplementedError(
                f"query mode {query.mode.value}: this store does default, sparse and hybrid"
            )
        candidates = max(limit, _CANDIDATES)
        weight = self.dense_weight if query.alpha is None else query.alpha
        return self._chunks(
            [
                ("dense", self._dense(query, candidates, wanted)),
                ("lexical", self._lexical(query, candidates, wanted)),
                ("found", Statement(sql.SQL(_FUSED).format(), [weight, 1 - weight, limit])),
            ]
        )

    def _chunks(self, parts: list[tuple[str, Statement]]) -> Statement:
        """Return the chunks that the last part finds."""
        steps = sql.SQL(", ").join(
            [
                sql.SQL("{} AS MATERIALIZED ({})").format(sql.Identifier(name), part.text)
                for name, part in parts
            ]
        )
        found = sql.Identifier(parts[-1][0])
        last = sql.SQL(_CHUNKS).format(columns=_COLUMNS, found=found, table=self.table)
        return Statement(
            sql.SQL("WITH {} {}").format(steps, last), [value for _, part in parts for value in part.values]
        )

    def _dense(self, query: VectorStoreQuery, limit: int, wanted: Condition) -> Statement:
        vector = HalfVector(normalized(query.query_embedding or []))
        text = sql.SQL(_DENSE).format(table=self.table, wanted=wanted[0])
        return Statement(text, [vector, *wanted[1], vector, limit])

    def _lexical(self, query: VectorStoreQuery, limit: int, wanted: Condition) -> Statement:
        asked = sorted(self.counter.terms(query.query_str or ""))
        frequencies = dict(zip(asked, self.terms.frequencies(asked), strict=True))
        known = sorted((term for term in asked if frequencies[term]), key=lambda term: frequencies[term])
        if not known:
            return Statement(sql.SQL(_NOTHING).format(), [])
        rarest, scored = known[:1], frequencies[known[0]]
        for term in known[1:]:
            scored += frequencies[term]
            if scored > _SCORED:
                break
            rarest.append(term)
        weights = [self.terms.inverse_frequency(frequencies[term]) for term in known]
        text = sql.SQL(_LEXICAL).format(table=self.table, wanted=wanted[0])
        bound = max(self.terms.score_bound(asked), 1e-9)
        return Statement(text, [sparse_vector(known, weights), bound, signed(rarest), *wanted[1], limit])

    def _wanted(self, query: VectorStoreQuery) -> Condition:
        parts = [condition_of(query.filters, self.fields)]
        if query.node_ids:
            parts.append((sql.SQL("id = ANY(%s)"), [_texts(query.node_ids)]))
        if query.doc_ids:
            parts.append((sql.SQL("ref_doc_id = ANY(%s)"), [_texts(query.doc_ids)]))
        return joined(" AND ", parts)


def _texts(values: Sequence[str]) -> list[str]:
    """Return the values that can be stored: others are equal to nothing."""
    return [value for value in values if storable(value) == value]
