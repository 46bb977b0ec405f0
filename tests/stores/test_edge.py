"""The embedded store, by LlamaIndex's contract."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from app.chunk_unit import ChunkUnit
from app.chunking import Chunker
from app.cutting import Chunking
from app.embeddings.local import LocalEmbedding
from app.embeddings.static import DIMENSIONS
from app.stores.edge import EdgeVectorStore

EMBEDDING = LocalEmbedding()

TEXTS = {
    "leave.pdf": ["Parental leave lasts sixteen weeks.", "Adoption leave lasts twelve weeks."],
    "travel.md": ["Trains are booked in second class.", "Hotels cost at most 165 euros a night."],
    "codes.csv": ["Error WC-05 means that the air is too humid."],
}


def nodes() -> list[TextNode]:
    made = []
    for document, texts in TEXTS.items():
        for page, text in enumerate(texts, start=1):
            node = TextNode(
                text=text,
                embedding=EMBEDDING.get_text_embedding(text),
                metadata={"document": document, "page": page, "score": page / 2},
                excluded_embed_metadata_keys=["document", "page", "score"],
            )
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
            made.append(node)
    return made


@pytest.fixture
def store(tmp_path: Path) -> EdgeVectorStore:
    made = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS, average_length=5)
    made.add(nodes())
    return made


def ask(text: str, mode: str = "hybrid", top_k: int = 3, **more: Any) -> VectorStoreQuery:
    return VectorStoreQuery(
        query_str=text,
        query_embedding=EMBEDDING.get_query_embedding(text),
        similarity_top_k=top_k,
        mode=VectorStoreQueryMode(mode),
        **more,
    )


def texts_of(store: EdgeVectorStore, query: VectorStoreQuery) -> list[str]:
    return [node.get_content() for node in store.query(query).nodes or []]


def where(key: str, value: Any, operator: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(operator))])


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("mode", ["default", "sparse", "text_search", "hybrid"])
def test_each_mode_finds_the_passage(store: EdgeVectorStore, mode: str) -> None:
    result = store.query(ask("How long is parental leave?", mode))
    assert result.nodes
    assert result.nodes[0].get_content() == "Parental leave lasts sixteen weeks."
    assert result.similarities == sorted(result.similarities or [], reverse=True)
    assert all(0 <= similarity <= 1 for similarity in result.similarities or [])
    assert [node.node_id for node in result.nodes] == result.ids


def test_words_find_what_meaning_does_not(store: EdgeVectorStore) -> None:
    """A code says nothing to an embedding."""
    assert "WC-05" in texts_of(store, ask("WC-05"))[0]


def test_other_modes_are_refused(store: EdgeVectorStore) -> None:
    with pytest.raises(NotImplementedError, match="mmr"):
        store.query(ask("x", "mmr"))


def test_alpha_weighs_the_two_rankings(store: EdgeVectorStore) -> None:
    """1 is the embeddings alone, 0 the words alone."""
    query = "sixteen trains"
    only_dense = store.query(ask(query, alpha=1.0)).similarities or []
    only_words = store.query(ask(query, alpha=0.0)).similarities or []
    both = store.query(ask(query, "default")).similarities or []
    assert only_dense[0] == pytest.approx(both[0])
    assert only_words[0] == pytest.approx((store.query(ask(query, "sparse")).similarities or [])[0])


def test_nothing_matching_is_an_empty_result(store: EdgeVectorStore) -> None:
    """Not an error, and not everything."""
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
        (where("page", 1, ">"), {"leave.pdf", "travel.md"}),
        (where("page", 2, "<"), {"leave.pdf", "travel.md", "codes.csv"}),
        (where("score", 0.5), {"leave.pdf", "travel.md", "codes.csv"}),
        (where("nothing", None, "is_empty"), {"leave.pdf", "travel.md", "codes.csv"}),
    ],
)
def test_filters(store: EdgeVectorStore, filters: MetadataFilters, expected: set[str]) -> None:
    found = store.query(ask("leave", top_k=50, filters=filters)).nodes or []
    assert {node.metadata["document"] for node in found} == expected


def test_filters_are_combined(store: EdgeVectorStore) -> None:
    leave, second = where("document", "leave.pdf").filters[0], where("page", 2).filters[0]
    counts = {
        condition: len(store.get_nodes(filters=MetadataFilters(filters=[leave, second], condition=condition)))
        for condition in FilterCondition
    }
    assert counts == {FilterCondition.AND: 1, FilterCondition.OR: 3, FilterCondition.NOT: 2}


def test_a_filter_value_is_never_taken_for_more_than_a_value(store: EdgeVectorStore) -> None:
    for value in ("leave.pdf' OR 1=1 --", "*", "leave.pdf\x00", "metadata.document"):
        assert store.query(ask("leave", filters=where("document", value))).nodes == []


def test_an_unknown_operator_is_refused_by_name(store: EdgeVectorStore) -> None:
    with pytest.raises(NotImplementedError, match="text_match"):
        store.query(ask("leave", filters=where("document", "leave", "text_match")))


def test_nodes_come_back_as_they_were(store: EdgeVectorStore) -> None:
    for node in store.get_nodes():
        assert node.metadata["document"] == node.ref_doc_id
        assert node.get_content() in TEXTS[node.metadata["document"]]


def test_a_document_is_deleted_by_name(store: EdgeVectorStore) -> None:
    """Its words no longer count in the statistics either."""
    store.delete("leave.pdf")
    assert {node.metadata["document"] for node in store.get_nodes()} == {"travel.md", "codes.csv"}
    assert store.chunk_count == 3
    assert not any("leave" in text for text in texts_of(store, ask("parental leave", top_k=50)))


def test_adding_a_node_again_replaces_it(store: EdgeVectorStore, tmp_path: Path) -> None:
    """A repeated run changes nothing, the statistics included."""
    again = nodes()
    before = EdgeVectorStore.create(tmp_path / "other", dimensions=DIMENSIONS, average_length=5)
    before.add(again)
    before.add(again)
    assert before.chunk_count == len(again) == len(before.get_nodes())
    query = ask("How long is parental leave?")
    assert before.query(query).similarities == pytest.approx(store.query(query).similarities)


def test_what_is_saved_is_what_is_opened(store: EdgeVectorStore, tmp_path: Path) -> None:
    query = ask("How long is parental leave?")
    expected = store.query(query).similarities
    store.save()
    store.close()
    opened = EdgeVectorStore.open(tmp_path / "store")
    assert opened.query(query).similarities == pytest.approx(expected)
    assert opened.chunk_count == 5


def test_opening_changes_no_file_and_many_may_open(store: EdgeVectorStore, tmp_path: Path) -> None:
    """Snapshots are immutable, and each worker opens its own."""
    store.save()
    store.close()
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    opened = [EdgeVectorStore.open(tmp_path / "store") for _ in range(3)]
    assert [texts_of(one, ask("trains"))[0] for one in opened] == ["Trains are booked in second class."] * 3
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == files


def test_a_vector_index_sits_on_it(tmp_path: Path) -> None:
    """LlamaIndex's own index writes to it and reads from it; no other store is needed."""
    store = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS)
    index = VectorStoreIndex(
        nodes=[TextNode(text=text, metadata={"document": name}) for name in TEXTS for text in TEXTS[name]],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=EMBEDDING,
        transformations=[Chunker(chunking=Chunking(1000, 0, ChunkUnit.CHARACTERS))],
    )
    found = index.as_retriever(similarity_top_k=1).retrieve("How much may a hotel cost?")
    assert found[0].node.get_content() == "Hotels cost at most 165 euros a night."


def test_ids_may_be_any_text(tmp_path: Path) -> None:
    """The engine knows numbers and UUIDs; LlamaIndex lets everybody choose."""
    store = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS)
    vector = EMBEDDING.get_text_embedding("text")
    ids = ["chapter 1", "7", "日本", "a" * 500]
    assert store.add([TextNode(id_=one, text=one, embedding=vector) for one in ids]) == ids
    assert {node.node_id for node in store.get_nodes()} == set(ids)
    store.delete_nodes(["7", "日本"])
    assert {node.node_id for node in store.get_nodes()} == {"chapter 1", "a" * 500}


def test_everything_is_deleted_only_by_its_name(store: EdgeVectorStore) -> None:
    """Not by a call that forgot to say what."""
    with pytest.raises(ValueError, match="clear"):
        store.delete_nodes()
    assert store.chunk_count == 5
    store.clear()
    assert store.chunk_count == 0
    assert store.query(ask("leave")).nodes == []


def test_a_node_twice_in_one_call_is_one(tmp_path: Path) -> None:
    store = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS)
    node = nodes()[0]
    store.add([node, node])
    assert store.chunk_count == len(store.get_nodes()) == 1


def test_a_search_runs_in_the_thread_that_asks(store: EdgeVectorStore, tmp_path: Path) -> None:
    """A pool of the engine's own for each open index would take longer, and 15 threads."""
    store.save()
    store.close()
    before = threads_of_this_process()
    opened = EdgeVectorStore.open(tmp_path / "store")
    opened.find(ask("leave"))
    assert threads_of_this_process() <= before + 1
    opened.close()


def test_queries_from_many_threads_agree(store: EdgeVectorStore) -> None:
    query = ask("How long is parental leave?")
    expected = store.query(query).ids
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.extend(store.query(query).ids for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 400
    assert asyncio.run(store.aquery(query)).ids == expected
