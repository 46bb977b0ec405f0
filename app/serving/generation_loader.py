"""Choosing and loading an index from PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.domain.errors import DatabaseUnavailable, IndexingError, SnapshotDamaged
from app.serving.loader import Choice
from app.serving.served_index import ServedIndex
from app.storage.postgres.chunk_table import ChunkTable
from app.storage.postgres.database import database_errors
from app.storage.postgres.generations import Generation
from app.storage.postgres.replicas import Replicas

OpenGeneration = Callable[[Generation, ChunkTable, Replicas], ServedIndex]


class GenerationLoader:
    """A `Loader` of generations, which never asks for a first build.

    There may be many servers, and their database role may be read-only.
    """

    def __init__(self, servers: Replicas, open_index: OpenGeneration) -> None:
        self._servers = servers
        self._open_index = open_index

    async def open(self) -> None:
        await self._servers.open()

    async def close(self) -> None:
        await self._servers.close()

    async def listen(self, heard: Callable[[], None]) -> None:
        self._servers.on_loss = heard
        await self._servers.listen(heard)

    def clean_up(self) -> None:
        pass

    def choose(self, served: ServedIndex | None) -> Choice:
        """Choose the published index, or the served one if that is damaged; see `Loader`.

        Raises:
            DatabaseUnavailable: none of the databases can be reached, or the served index is gone.
            IndexingError: there is no index.
            FingerprintMismatch: the index does not fit the settings.
            SnapshotDamaged: the index is damaged, and none is served.
        """
        wanted = self._servers.look()
        if wanted is None:
            kind = IndexingError if served is None else DatabaseUnavailable
            raise kind("there is no index in the database: run make reindex")
        if served is not None and served.id == wanted:
            return Choice(served, None)
        try:
            return Choice(self._load(wanted), None)
        except SnapshotDamaged as damage:
            if served is None:
                raise
            return Choice(served, f"{damage}; {served.id} is still served")

    def scrub(self, index: ServedIndex, stopped: threading.Event) -> None:
        """Do nothing: PostgreSQL checks its own pages."""

    def _load(self, index_id: str) -> ServedIndex:
        generation, chunks = self._servers.load(index_id)
        index = self._open_index(generation, chunks, self._servers)
        with database_errors():
            index.engine.self_test()
        return index
