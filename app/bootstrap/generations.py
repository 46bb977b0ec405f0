"""Put together the parts that serve an index in PostgreSQL."""

from __future__ import annotations

from app.bootstrap.engines import EngineMaker
from app.bootstrap.postgres import make_replicas
from app.config.settings import Settings
from app.serving.generation_loader import GenerationLoader
from app.serving.served_index import ServedIndex
from app.storage.postgres.chunk_table import ChunkTable
from app.storage.postgres.generations import Generation
from app.storage.postgres.replica import PoolObserver
from app.storage.postgres.replicas import Replicas
from app.storage.postgres.timeouts import DatabaseTimeouts
from app.storage.postgres.vector_store import PostgresVectorStore


def make_generation_loader(
    settings: Settings, maker: EngineMaker, observer: PoolObserver, timeouts: DatabaseTimeouts
) -> GenerationLoader:
    """Make the part that loads the index to be served from the database of DATABASE_URL."""

    def open_index(generation: Generation, chunks: ChunkTable, servers: Replicas) -> ServedIndex:
        maker.recipe.check_vectors_of(generation.manifest)
        store = PostgresVectorStore(chunks, servers, dense_weight=maker.retrieval.dense_weight)
        return ServedIndex(generation, maker.make(generation.manifest, store), close=lambda: None)

    return GenerationLoader(make_replicas(settings, observer, timeouts), open_index)
