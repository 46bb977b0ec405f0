"""A search in PostgreSQL finds what the embedded engine finds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilters

from app.config.settings import Settings
from app.embeddings.static_model import DIMENSIONS
from app.storage.chunks import Entry, StoredChunk
from app.storage.disk.vector_store import EdgeVectorStore
from app.storage.fusion import Ranking, fuse
from app.storage.postgres.chunk_table import ChunkTable, Hnsw
from app.storage.postgres.database import Database
from app.storage.postgres.replica import Limits
from app.storage.postgres.schema import migrate
from app.storage.postgres.vector_store import PostgresVectorStore
from app.text.bm25 import TermCounter
from tests.support.postgres import PostgresServer, drop_schema
from tests.support.stores import Store, ask, where
from tests.support.timing import PATIENT

QUESTIONS = [
    "How long is parental leave?",
    "What does error WC-05 mean?",
    "Who approves travel abroad, and how much may a hotel cost?",
    "refund",
    "the of and",
    "Wie lange dauert der Urlaub?",
]
MODES = ["default", "sparse", "hybrid"]
# A vector's numbers have 16 bits.
_TOLERANCE = 2e-3
_ALL = 1000
_LIMITS = Limits(pool_min=1, pool_max=1, wait_s=5, statement_s=10, ef_search=40)


@pytest.fixture(scope="module")
def edge(sample_settings: Settings) -> Iterator[EdgeVectorStore]:
    current = (sample_settings.index.dir / "CURRENT").read_text().strip()
    store = EdgeVectorStore.open(sample_settings.index.dir / "snapshots" / current, dense_weight=0.3)
    yield store
    store.close()


@pytest.fixture(scope="module")
def in_postgres(edge: EdgeVectorStore, postgres: PostgresServer) -> Iterator[PostgresVectorStore]:
    """The same chunks and average length: a build's depends on which document is read first."""
    place = Database(postgres.url(), f"test_{secrets.token_hex(4)}", PATIENT.database)
    connection = place.connect("test")
    migrate(connection, place)
    shard = edge._shard
    table = ChunkTable.create(
        connection, place, "sample", dimensions=DIMENSIONS, average_length=shard.average_length
    )
    for name in sorted({node.metadata["document"] for node in edge.get_nodes()}):
        table.add(shard.entries(name))
    table.build_indexes(Hnsw())
    assert table.average_length == shard.average_length
    yield PostgresVectorStore(table, dense_weight=0.3)
    connection.close()
    drop_schema(postgres, place.schema)


def ranking(
    store: Store, question: str, mode: str, filters: MetadataFilters | None = None, top_k: int = _ALL
) -> Ranking:
    hits = store.find(ask(question, mode, top_k, filters=filters))
    return [(hit.chunk.id, hit.score) for hit in hits]


def assert_agree(one: Ranking, other: Ranking) -> None:
    """In what they find, in the scores, and in the order of what scores differently."""
    scores = dict(other)
    assert {chunk for chunk, _ in one} == scores.keys()
    for chunk, score in one:
        assert score == pytest.approx(scores[chunk], abs=_TOLERANCE)
    for (chunk, score), (_, expected) in zip(one, other, strict=True):
        assert score == pytest.approx(expected, abs=_TOLERANCE), chunk


def test_both_stores_have_the_same_chunks(edge: EdgeVectorStore, in_postgres: PostgresVectorStore) -> None:
    ids = {node.node_id for node in edge.get_nodes()}
    assert {node.node_id for node in in_postgres.get_nodes()} == ids
    assert len(ids) == edge.chunk_count == in_postgres.chunk_count < _ALL


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_both_stores_rank_alike(
    edge: EdgeVectorStore, in_postgres: PostgresVectorStore, question: str, mode: str
) -> None:
    found = ranking(in_postgres, question, mode)
    expected = ranking(edge, question, mode)
    assert_agree(found, expected)
    assert [chunk for chunk, _ in found][:1] == [chunk for chunk, _ in expected][:1]
    few = ranking(in_postgres, question, mode, top_k=5)
    assert [score for _, score in few] == pytest.approx([score for _, score in found[:5]])


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fused_scores_equal_those_of_fuse(
    in_postgres: PostgresVectorStore, question: str, weight: float
) -> None:
    """`fuse` gets the store's own two rankings."""
    dense, words = (ranking(in_postgres, question, mode) for mode in ("default", "sparse"))
    hits = in_postgres.find(ask(question, "hybrid", _ALL, alpha=weight))
    fused = fuse(dense, words, dense_weight=weight, limit=_ALL)
    assert {hit.chunk.id: hit.score for hit in hits} == pytest.approx(dict(fused), abs=1e-6)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))


@pytest.mark.parametrize("question", ["zzzzqqq", "", "???", "\N{PILE OF POO}", "\x00"])
def test_a_question_without_a_known_word_is_ranked_by_embedding(
    edge: EdgeVectorStore, in_postgres: PostgresVectorStore, question: str
) -> None:
    assert ranking(in_postgres, question, "sparse") == ranking(edge, question, "sparse") == []
    assert_agree(ranking(in_postgres, question, "hybrid"), ranking(edge, question, "hybrid"))


@pytest.mark.parametrize("field", ["document", "format", "page", "heading"])
@pytest.mark.parametrize("mode", MODES)
def test_both_stores_filter_each_field_alike(
    edge: EdgeVectorStore, in_postgres: PostgresVectorStore, field: str, mode: str
) -> None:
    """The filters are every value of a field, and several values at once."""
    values = sorted({node.metadata[field] for node in edge.get_nodes()} - {None})
    assert len(values) > 1
    for wanted in [*values[:8], values[:3], [values[0], "none" if isinstance(values[0], str) else 999]]:
        filters = where(field, wanted, "in" if isinstance(wanted, list) else "==")
        question = QUESTIONS[2]
        found = ranking(in_postgres, question, mode, filters)
        assert_agree(found, ranking(edge, question, mode, filters))
        assert found or mode == "sparse"


def test_a_selective_filter_is_searched_to_the_end(database: dict[str, Any]) -> None:
    """The matches are far from the question, and none is among the nearest that HNSW returns first."""
    store = PostgresVectorStore.create(
        Database(database["database_url"], database["db_schema"], PATIENT.database),
        "many",
        dimensions=8,
        average_length=5,
    )
    made = np.random.default_rng(1)
    question = np.ones(8)
    near, far = question + made.normal(0, 0.1, (1500, 8)), -question + made.normal(0, 0.1, (5, 8))
    store.add(
        [node(f"near-{place}", vector, "txt") for place, vector in enumerate(near)]
        + [node(f"far-{place}", vector, "csv") for place, vector in enumerate(far)]
    )
    store.client.execute("ANALYZE")
    for name, value in {**_LIMITS.session(), "enable_sort": "off", "enable_bitmapscan": "off"}.items():
        store.client.execute("SELECT set_config(%s, %s, false)", [name, value])
    query = ask("text", "default", 10, filters=where("format", "csv"))
    query.query_embedding = question.tolist()
    statement = store._search.statement(query)
    plan = store.client.execute(b"EXPLAIN " + statement.text.as_bytes(), statement.values).fetchall()
    assert "hnsw" in str(plan) or "embedding_idx" in str(plan)
    found = store.find(query)
    cosines = far @ question / np.linalg.norm(far, axis=1) / np.linalg.norm(question)
    assert [hit.chunk.id for hit in found] == [f"far-{place}" for place in np.argsort(-cosines)]
    store.close()


def test_a_drift_of_the_average_length_is_corrected(database: dict[str, Any]) -> None:
    """The weights then equal those made with the right length, and counts of terms do not change."""
    place = Database(database["database_url"], database["db_schema"], PATIENT.database)
    connection = place.connect("test")
    migrate(connection, place)
    entries = some_entries(50)
    right = sum(entry.terms.length for entry in entries) / len(entries)
    tables = {}
    for name, average in {"drifted": 4 * right, "right": right, "near": 1.05 * right}.items():
        table = ChunkTable.create(connection, place, name, dimensions=3, average_length=average)
        table.add(entries)
        table.build_indexes(Hnsw())
        table.save_statistics()
        tables[name] = ChunkTable.open(connection, place, name)
    assert tables["drifted"].average_length == pytest.approx(right)
    assert tables["near"].average_length == pytest.approx(1.05 * right)
    for entry in entries:
        name = str(entry.chunk.ref_doc_id)
        for table in tables.values():
            (stored,) = table.entries(name)
            assert dict(zip(*stored.terms, strict=True)) == dict(zip(*entry.terms, strict=True))
    ranked = [
        ranking(PostgresVectorStore(tables[name]), "word number 7 word", "sparse")
        for name in ("drifted", "right")
    ]
    assert [chunk for chunk, _ in ranked[0]] == [chunk for chunk, _ in ranked[1]]
    assert [score for _, score in ranked[0]] == pytest.approx([score for _, score in ranked[1]])
    assert ranked[0]
    connection.close()


def node(name: str, vector: Sequence[float] | np.ndarray, kind: str) -> TextNode:
    return TextNode(
        id_=name, text="text", embedding=[float(each) for each in vector], metadata={"format": kind}
    )


def some_entries(count: int) -> list[Entry]:
    """Of texts of different lengths."""
    counter = TermCounter()
    made = []
    for number in range(count):
        text = f"word number {number} " + "word " * (number % 9)
        chunk = StoredChunk(f"chunk-{number}", f"{number}.txt", text, 0, 1, {}, f"{number:064x}", 1)
        made.append(Entry(chunk, [1.0, number, 1.0], counter.count(text)))
    return made
