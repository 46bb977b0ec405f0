"""Which index of the database is to be served, and loading it."""

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
    """See `Loader`. It never builds: servers may have a role that only reads, and there are many of them."""

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
        """
        Raises:
            DatabaseUnavailable: none of the databases can be reached, or the served index is gone.
            IndexingError: there is no index.
            FingerprintMismatch: it does not fit the settings.
            SnapshotDamaged: it cannot be used, and none is served.
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
            return Choice(served, f"{damage}; {served.id} goes on being served")

    def scrub(self, index: ServedIndex, stopped: threading.Event) -> None:
        """Nothing: checksums are the database's business."""

    def _load(self, index_id: str) -> ServedIndex:
        generation, chunks = self._servers.load(index_id)
        index = self._open_index(generation, chunks, self._servers)
        with database_errors():
            index.engine.self_test()
        return index
