"""What anybody may send as a filter, or put into a document, is only ever a value."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from app.config.settings import Settings
from app.storage.postgres.database import Database
from app.storage.postgres.vector_store import PostgresVectorStore
from tests.conftest import build
from tests.support.postgres import PostgresServer, drop_schema
from tests.support.stores import EMBEDDING, FIELDS, Stores, ask, nodes, where
from tests.support.timing import PATIENT

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

_PLANTED = "planted-5f3a9c"
_EQUALITIES = ["==", "in", "any", "all", "contains"]
_COMPARISONS = [">", ">=", "<", "<="]
_ATTACKS = [
    "' OR true --",
    "'; DROP SCHEMA public CASCADE; --",
    "\\'; SELECT 1; --",
    '" OR "1"="1',
    "') = ANY('{}') OR (true",
    "$$; SELECT pg_sleep(9); $$",
    "%s",
    "%(id)s",
    "%",
    "{}",
    "{table}",
    "{0.__class__}",
    "\x00",
    "leave.pdf\x00",
    "\ud800",
    "\udcff\udc00",
    "日本語 \N{PILE OF POO} \u202e",
    "null",
    "[]",
    '{"a": 1}',
    "metadata -> 'document'",
    "%' OR metadata ->> 'document' LIKE '%",
    "x" * 1_000_000,
]
_texts = st.sampled_from(_ATTACKS) | st.text() | st.text("'\"\\%s{}$;-\x00 ", max_size=30)
_INFINITE = [math.inf, -math.inf, math.nan]
_numbers = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 10**400, 1e308, -0.0, True])
_scalars = _texts | _numbers | st.none()
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@pytest.fixture(scope="module")
def store(postgres: PostgresServer) -> Iterator[PostgresVectorStore]:
    """The usual nodes, and one that no filter here names."""
    database = Database(postgres.url(), f"test_{secrets.token_hex(4)}", PATIENT.database)
    stores = Stores(database)
    made = stores.create()
    assert isinstance(made, PostgresVectorStore)
    vector = EMBEDDING.get_text_embedding("parental leave")
    metadata = dict.fromkeys(FIELDS[:3], _PLANTED)
    made.add([TextNode(id_=_PLANTED, text="parental leave", embedding=vector, metadata=metadata)])
    yield made
    stores.close()
    drop_schema(postgres, database.schema)


def documents_found(store: PostgresVectorStore, filters: MetadataFilters) -> set[str]:
    found = {hit.chunk.metadata["document"] for hit in store.find(ask("leave", top_k=50, filters=filters))}
    assert found == {node.metadata["document"] for node in store.get_nodes(filters=filters)}
    return found


def assert_unharmed(store: PostgresVectorStore) -> None:
    assert store.client.info.transaction_status.name == "IDLE"
    assert len(store.get_nodes()) == len(nodes()) + 1
    assert _PLANTED in documents_found(store, where("document", _PLANTED))


def unchecked(key: str, value: Any, operator: str) -> MetadataFilters:
    """LlamaIndex itself would refuse most of these values."""
    part = MetadataFilter.model_construct(key=key, value=value, operator=FilterOperator(operator))
    return MetadataFilters.model_construct(filters=[part], condition="and")


@hypothesis_settings(max_examples=100)
@given(st.sampled_from(FIELDS), _values, st.sampled_from(_EQUALITIES + _COMPARISONS))
def test_no_filter_value_matches_more_than_it_names(
    store: PostgresVectorStore, field: str, value: Any, operator: str
) -> None:
    """Values of a wrong kind match nothing, or are refused as invalid."""
    if operator == "all" and value == []:
        return  # of nothing at all, everything has all
    try:
        found = documents_found(store, unchecked(field, value, operator))
    except (ValueError, TypeError):
        found = set()
    assert _PLANTED not in found
    assert_unharmed(store)


@pytest.mark.parametrize("operator", _EQUALITIES)
@pytest.mark.parametrize("value", [*_INFINITE, _INFINITE, [_INFINITE], {"a": _INFINITE}])
def test_numbers_that_json_cannot_express_match_nothing(
    store: PostgresVectorStore, value: Any, operator: str
) -> None:
    assert documents_found(store, unchecked("page", value, operator)) == set()


@hypothesis_settings(max_examples=40)
@given(_texts.filter(lambda name: name not in FIELDS), _values, st.sampled_from(list(FilterOperator)))
def test_the_refusal_of_an_unknown_field_names_the_known_ones(
    store: PostgresVectorStore, name: str, value: Any, operator: FilterOperator
) -> None:
    with pytest.raises(ValueError, match="there are only document, page, score, nothing"):
        store.find(ask("leave", filters=unchecked(name, value, operator.value)))
    with pytest.raises(ValueError, match="there are only"):
        store.delete_nodes(filters=unchecked(name, value, operator.value))
    assert_unharmed(store)


@hypothesis_settings(max_examples=40)
@given(st.lists(_texts, max_size=3), st.lists(_texts, max_size=3), _texts)
def test_ids_and_questions_are_never_taken_for_sql(
    store: PostgresVectorStore, node_ids: list[str], documents: list[str], question: str
) -> None:
    """Values that name nothing find and delete nothing."""
    question = question.encode(errors="replace").decode()[:8000]
    query = ask(question, node_ids=node_ids or ["none"], doc_ids=documents or ["none"])
    assert store.find(query) == []
    store.delete_nodes(node_ids)
    for name in documents:
        store.delete(name)
    store.find(ask(question))
    assert_unharmed(store)


@pytest.fixture(params=["disk", "postgres"])
def made(request: pytest.FixtureRequest, settings: MakeSettings) -> Settings:
    """Without documents, on each kind of storage."""
    return settings(**(request.getfixturevalue("database") if request.param == "postgres" else {}))


def test_invalid_filters_are_an_ordinary_error(made: Settings, serve: Serve) -> None:
    """It names the field, and shows nothing of the database."""
    (made.documents.dir / "leave.md").write_text("Parental leave lasts 16 weeks.")
    build(made)
    client = serve(made)
    for name in ("author", "document' OR true --", "{table}", "%s", "NUL\x00"):
        response = client.post("/retrieve", json={"query": "leave", "filters": {name: "x"}})
        problem = response.json()
        assert (response.status_code, problem["code"]) == (422, "invalid_request")
        assert name in response.text or "NUL" in response.text
    for value in _ATTACKS:
        if len(value) < 100 and value.isprintable():
            response = client.post("/retrieve", json={"query": "leave", "filters": {"document": value}})
            assert (response.status_code, response.json()["citations"]) == (200, [])
    response = client.post("/retrieve", json={"query": "leave\x00 %s", "filters": {"document": "a\x00"}})
    assert (response.status_code, response.json()["citations"]) == (200, [])
    raw = b'{"query": "leave", "filters": {"page": 1e999}}'
    response = client.post("/retrieve", content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    raw = b'{"query": "leave", "filters": {"document": "\\ud800"}}'
    response = client.post("/retrieve", content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code == 422


def write_odd_documents(folder: Path) -> dict[str, str]:
    """Gives a question for each, by its name."""
    (folder / "nul.json").write_text('{"note": "The lantern \\u0000 glows green."}')
    (folder / "half.html").write_text("<p>The kettle &#xd800; whistles &#0; at noon.</p>")
    (folder / "long.txt").write_text("walrus " + "x" * 1_000_000)
    (folder / "heading.md").write_text(f"# Zebra {'stripes ' * 10_000}\n\nA zebra sleeps standing.\n")
    (folder / "dense-heading.md").write_text(
        f"# {secrets.token_hex(4000)}\n\nThe ferret naps in the drawer.\n"
    )
    (folder / os.fsdecode(b"bad-\xff-name.txt")).write_text("The otter swims upstream.")
    (folder / "new\nline.txt").write_text("The badger digs at dusk.")
    return {
        "nul.json": "lantern glows",
        "half.html": "kettle whistles",
        "long.txt": "walrus",
        "heading.md": "zebra sleeps standing",
        "dense-heading.md": "ferret drawer",
        "bad-\\xff-name.txt": "otter upstream",
        "new\\nline.txt": "badger dusk",
    }


def test_odd_documents_are_indexed_and_found(made: Settings, serve: Serve) -> None:
    """They have NUL bytes, half surrogate pairs, 1 MB without a blank, or headings larger than a page."""
    questions = write_odd_documents(made.documents.dir)
    report = build(made)
    assert {record.name: record.problem for record in report.documents} == dict.fromkeys(questions)
    assert not build(made).published
    client = serve(made)
    for name, question in questions.items():
        answer = client.post("/retrieve", json={"query": question, "top_k": 1}).json()
        (citation,) = answer["citations"]
        assert citation["document"] == name
        filtered = {"query": question, "top_k": 1, "filters": {"document": name}}
        (citation,) = client.post("/retrieve", json=filtered).json()["citations"]
        assert citation["document"] == name
