"""The query engine as LlamaIndex knows it; over HTTP it is tested with the routes."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.base.response.schema import Response

from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_index_manager
from app.config.settings import Settings
from app.query.engine import RagQueryEngine

QUESTION = "How long is parental leave?"


@pytest.fixture
def engine(sample_settings: Settings) -> RagQueryEngine:
    async def load() -> RagQueryEngine:
        manager = make_index_manager(sample_settings, make_provider(sample_settings))
        await manager.start()
        return manager.current.engine

    return asyncio.run(load())


def check(response: object) -> None:
    assert isinstance(response, Response)
    assert "16 weeks" in (response.response or "")
    assert response.metadata is not None
    assert response.metadata["status"] == "answered"
    found = [(node.node.metadata["document"], node.score) for node in response.source_nodes]
    cited = [(citation["document"], citation["score"]) for citation in response.metadata["citations"]]
    assert found == cited
    assert any("16 weeks" in node.node.get_content() for node in response.source_nodes)


def test_the_engine_answers_llamaindex_methods(engine: RagQueryEngine) -> None:
    """The synchronous and the asynchronous one work, as LlamaIndex's workflows and tools need them."""
    check(asyncio.run(engine.aquery(QUESTION)))
    check(engine.query(QUESTION))


def test_a_vector_store_index_gives_a_retriever(engine: RagQueryEngine) -> None:
    """It is LlamaIndex's own class, over the same store."""
    found = engine.index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    assert "policies/leave.pdf" in {node.node.metadata["document"] for node in found}
