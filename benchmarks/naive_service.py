"""The naive service: a tutorial's `query_engine.aquery` behind FastAPI, with OpenAI's models.

`python -m benchmarks.naive_service --port 9000 --storage FOLDER --provider http://127.0.0.1:9001/v1`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI
from llama_index.core import Settings, StorageContext, load_index_from_storage
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel

from benchmarks.null_app import serve
from benchmarks.processes import Replica, free_port, running

_API_KEY = "sk-benchmark"


class Question(BaseModel):
    """The body of a request."""

    query: str


class Answer(BaseModel):
    """The body of a response."""

    answer: str
    sources: list[str]


def embedding_model(provider_url: str) -> OpenAIEmbedding:
    """Make LlamaIndex's own embedding for a provider."""
    return OpenAIEmbedding(model="text-embedding-3-small", api_base=provider_url, api_key=_API_KEY)


@contextmanager
def naive_service(storage: Path, provider_url: str) -> Iterator[Replica]:
    """Run the naive service in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.naive_service", f"--port={port}"]
    command += [f"--storage={storage}", f"--provider={provider_url}"]
    with running(command, port=port, ready="/health/live") as server:
        yield server


def create_app(storage: Path, provider_url: str) -> FastAPI:
    """Make the application of the naive service, over a stored index."""
    _use(provider_url)
    index = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(storage)))
    query_engine = index.as_query_engine(similarity_top_k=5)
    app = FastAPI()

    @app.post("/query")
    async def query(question: Question) -> Answer:
        response = await query_engine.aquery(question.query)
        sources = dict.fromkeys(node.metadata["document"] for node in response.source_nodes)
        return Answer(answer=str(response), sources=list(sources))

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _use(provider_url: str) -> None:
    Settings.llm = OpenAI("gpt-4o-mini", api_base=provider_url, api_key=_API_KEY)
    Settings.embed_model = embedding_model(provider_url)
    # The default, SentenceSplitter, reads nltk's data and fails if packages are hard-linked. Nothing is split
    # here. Tokens are counted with the default tokenizer, which comes with LlamaIndex.
    Settings.node_parser = TokenTextSplitter()


def main() -> None:
    """Serve a stored index."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.naive_service", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--provider", required=True)
    arguments = parser.parse_args()
    serve(create_app(arguments.storage, arguments.provider), arguments.port)


if __name__ == "__main__":
    main()
