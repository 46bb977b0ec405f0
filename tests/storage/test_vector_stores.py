"""Every store, by LlamaIndex's contract."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters

from app.domain.chunk import ChunkUnit
from app.storage.nodes import Chunker
from app.storage.postgres.database import Database
from app.text.chunking import Chunking
from tests.support.stores import EMBEDDING, TEXTS, Store, Stores, ask, nodes, texts_of, where
from tests.support.timing import PATIENT


@pytest.fixture(params=["edge", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    if request.param == "edge":
        made = Stores(tmp_path)
    else:
        values: dict[str, Any] = request.getfixturevalue("database")
        made = Stores(Database(values["database_url"], values["db_schema"], PATIENT.database))
    yield made
    made.close()


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.create()


@pytest.mark.parametrize("mode", ["default", "sparse", "text_search", "hybrid"])
def test_each_mode_finds_the_passage(store: Store, mode: str) -> None:
    result = store.query(ask("How long is parental leave?", mode))
    assert result.nodes
    assert result.nodes[0].get_content() == "Parental leave lasts sixteen weeks."
    assert result.similarities == sorted(result.similarities or [], reverse=True)
    assert all(0 <= similarity <= 1 for similarity in result.similarities or [])
    assert [node.node_id for node in result.nodes] == result.ids


def test_codes_are_found_by_their_terms(store: Store) -> None:
    """An embedding does not represent a code."""
    assert "WC-05" in texts_of(store, ask("WC-05"))[0]


def test_other_modes_are_refused(store: Store) -> None:
    with pytest.raises(NotImplementedError, match="mmr"):
        store.query(ask("x", "mmr"))


def test_alpha_weighs_the_two_rankings(store: Store) -> None:
    """At 1, only embeddings count; at 0, only terms."""
    query = "sixteen trains"
    only_dense = store.query(ask(query, alpha=1.0)).similarities or []
    only_words = store.query(ask(query, alpha=0.0)).similarities or []
    both = store.query(ask(query, "default")).similarities or []
    assert only_dense[0] == pytest.approx(both[0])
    assert only_words[0] == pytest.approx((store.query(ask(query, "sparse")).similarities or [])[0])


def test_a_query_without_a_match_has_an_empty_result(store: Store) -> None:
    """It neither raises an error nor returns everything."""
    result = store.query(ask("leave", filters=where("document", "no such")))
    assert (result.nodes, result.similarities, result.ids) == ([], [], [])
    assert store.query(ask("zzzz", "sparse")).nodes == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (where("document", "leave.pdf"), {"leave.pdf"}),
        (where("document", ["leave.pdf", "codes.csv"], "in"), {"leave.pdf", "codes.csv"}),
        (where("document", [], "in"), set()),
        (where("document", ["leave.pdf"], "nin"), {"travel.md", "codes.csv"}),
        (where("document", "leave.pdf", "!="), {"travel.md", "codes.csv"}),
        (where("page", 2), {"leave.pdf", "travel.md"}),
        (where("page", "2"), set()),
        (where("page", 1, ">"), {"leave.pdf", "travel.md"}),
        (where("page", 2, "<"), {"leave.pdf", "travel.md", "codes.csv"}),
        (where("score", 0.5), {"leave.pdf", "travel.md", "codes.csv"}),
        (where("nothing", None, "is_empty"), {"leave.pdf", "travel.md", "codes.csv"}),
    ],
)
def test_filters_select_documents(store: Store, filters: MetadataFilters, expected: set[str]) -> None:
    found = store.query(ask("leave", top_k=50, filters=filters)).nodes or []
    assert {node.metadata["document"] for node in found} == expected


def test_filters_are_combined(store: Store) -> None:
    leave, second = where("document", "leave.pdf").filters[0], where("page", 2).filters[0]
    counts = {
        condition: len(store.get_nodes(filters=MetadataFilters(filters=[leave, second], condition=condition)))
        for condition in FilterCondition
    }
    assert counts == {FilterCondition.AND: 1, FilterCondition.OR: 3, FilterCondition.NOT: 2}


def test_a_filter_value_is_never_interpreted(store: Store) -> None:
    for value in ("leave.pdf' OR 1=1 --", "*", "leave.pdf\x00", "metadata.document"):
        assert store.query(ask("leave", filters=where("document", value))).nodes == []


def test_the_refusal_of_an_unknown_operator_names_it(store: Store) -> None:
    with pytest.raises(NotImplementedError, match="text_match"):
        store.query(ask("leave", filters=where("document", "leave", "text_match")))


def test_nodes_are_returned_unchanged(store: Store) -> None:
    for node in store.get_nodes():
        assert node.metadata["document"] == node.ref_doc_id
        assert node.get_content() in TEXTS[node.metadata["document"]]


def test_a_document_is_deleted_by_name(store: Store) -> None:
    """Its terms no longer count in the statistics, either."""
    store.delete("leave.pdf")
    assert {node.metadata["document"] for node in store.get_nodes()} == {"travel.md", "codes.csv"}
    assert store.chunk_count == 3
    assert not any("leave" in text for text in texts_of(store, ask("parental leave", top_k=50)))


def test_adding_a_node_again_replaces_it(store: Store, stores: Stores) -> None:
    """A repeated run changes nothing, not even the statistics."""
    again = nodes()
    before = stores.create("other", filled=False)
    before.add(again)
    before.add(again)
    assert before.chunk_count == len(again) == len(before.get_nodes())
    query = ask("How long is parental leave?")
    assert before.query(query).similarities == pytest.approx(store.query(query).similarities)


def test_a_saved_store_can_be_opened_again(store: Store, stores: Stores) -> None:
    query = ask("How long is parental leave?")
    expected = store.query(query).similarities
    store.save()
    store.close()
    opened = stores.open()
    assert opened.query(query).similarities == pytest.approx(expected)
    assert opened.chunk_count == 5


def test_a_vector_store_index_works_with_the_store(stores: Stores) -> None:
    """LlamaIndex's own index writes to it and reads from it, and needs no other store."""
    store = stores.create(filled=False)
    index = VectorStoreIndex(
        nodes=[TextNode(text=text, metadata={"document": name}) for name in TEXTS for text in TEXTS[name]],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=EMBEDDING,
        transformations=[Chunker(chunking=Chunking(1000, 0, ChunkUnit.CHARACTERS))],
    )
    found = index.as_retriever(similarity_top_k=1).retrieve("How much may a hotel cost?")
    assert found[0].node.get_content() == "Hotels cost at most 165 euros a night."


def test_ids_may_be_any_text(stores: Stores) -> None:
    """The engine has only numbers and UUIDs, but LlamaIndex allows any text."""
    store = stores.create(filled=False)
    vector = EMBEDDING.get_text_embedding("text")
    ids = ["chapter 1", "7", "日本", "a" * 500]
    assert store.add([TextNode(id_=one, text=one, embedding=vector) for one in ids]) == ids
    assert {node.node_id for node in store.get_nodes()} == set(ids)
    store.delete_nodes(["7", "日本"])
    assert {node.node_id for node in store.get_nodes()} == {"chapter 1", "a" * 500}


def test_only_clear_deletes_everything(store: Store) -> None:
    """A call of `delete_nodes` without arguments is refused."""
    with pytest.raises(ValueError, match="clear"):
        store.delete_nodes()
    assert store.chunk_count == 5
    store.clear()
    assert store.chunk_count == 0
    assert store.query(ask("leave")).nodes == []


def test_a_node_added_twice_in_one_call_is_stored_once(stores: Stores) -> None:
    store = stores.create(filled=False)
    node = nodes()[0]
    store.add([node, node])
    assert store.chunk_count == len(store.get_nodes()) == 1


def test_a_store_can_be_queried_from_an_event_loop(store: Store) -> None:
    query = ask("How long is parental leave?")
    assert asyncio.run(store.aquery(query)).ids == store.query(query).ids
    assert [hit.chunk.id for hit in asyncio.run(store.afind(query))] == store.query(query).ids


def test_texts_and_ids_with_nul_bytes_are_stored(store: Store) -> None:
    """Not every engine can store them; a text is still found by its terms, and a node deleted by its id."""
    name = "cooling\x00tower"
    vector = EMBEDDING.get_text_embedding("cooling")
    node = TextNode(id_=name, text="The \x00 tower is cooled.", embedding=vector, metadata={"document": name})
    assert store.add([node]) == store.add([node]) == [name]
    assert "tower is cooled" in texts_of(store, ask("tower", "sparse"))[0]
    assert store.chunk_count == len(store.get_nodes()) == 6
    store.delete_nodes([name])
    assert store.chunk_count == len(store.get_nodes()) == 5
