"""The databases that answer questions: read replicas where there are some, and the primary."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg_pool import PoolTimeout

from app.domain.errors import (
    DatabaseError,
    IndexingError,
    IndexNotReady,
    Overloaded,
    RagError,
    SnapshotDamaged,
)
from app.storage.postgres.chunk_table import ChunkTable
from app.storage.postgres.database import Database
from app.storage.postgres.generations import CHANNEL, Generation
from app.storage.postgres.replica import Limits, PoolObserver, Replica
from app.storage.postgres.statement import Statement

logger = logging.getLogger(__name__)

_LISTEN_AGAIN_S = 1.0
_RETRY_AFTER_S = 2


class Replicas:
    """The databases of a service: replicas are asked in turn, and the primary where none can answer.

    Args:
        observer: told of the pools whenever this looks at the databases.
    """

    def __init__(
        self,
        primary: Database,
        replicas: Sequence[Database],
        limits: Limits,
        observer: PoolObserver | None = None,
    ) -> None:
        self._observer = observer
        self.primary = Replica(primary, limits)
        self.replicas = [Replica(database, limits) for database in replicas]
        self._limits = limits
        self._turn = itertools.count()
        self.on_loss: Callable[[], None] = lambda: None

    @property
    def all(self) -> list[Replica]:
        return [self.primary, *self.replicas]

    async def open(self) -> None:
        for server in self.all:
            await server.open()

    async def close(self) -> None:
        for server in self.all:
            await server.close()

    def look(self) -> str | None:
        """Look at each; return the index to be served, or None where there is none. For one thread.

        Raises:
            IndexingError: none gives an answer; what is wrong with the primary.
        """
        if self._observer is not None:
            for number, server in enumerate(self.all):
                server.tell(f"replica{number}" if number else "primary", self._observer)
        found: dict[Replica, str | None] = {}
        problems: list[IndexingError] = []
        for server in self.all:
            try:
                found[server] = server.look()
            except IndexingError as error:
                problems.append(error)
                self._note(server, error)
            else:
                server.problem = None
        if self.primary in found:
            return found[self.primary]
        if not found:
            raise problems[0]
        return max(filter(None, found.values()), default=None)

    def load(self, index_id: str) -> tuple[Generation, ChunkTable]:
        """Load an index, with a connection of the thread that looks, from where it can be asked.

        Raises:
            DatabaseError: no database can be reached, or it refuses.
            SnapshotDamaged: the index is gone, or of another version of this service.
        """
        problem: IndexingError = SnapshotDamaged(f"the database has no index {index_id}: run make reindex")
        for server in self.having(index_id):
            try:
                return server.load(index_id)
            except (DatabaseError, SnapshotDamaged) as error:
                problem = error
        raise problem

    def _note(self, server: Replica, error: IndexingError) -> None:
        """Log what is wrong with a replica: whoever asks is answered by another one, and sees nothing."""
        if server is not self.primary and server.problem != error.reason:
            number = self.replicas.index(server) + 1
            logger.warning("database: read replica %d: %s", number, error.reason)
        server.problem = error.reason

    def having(self, index_id: str) -> list[Replica]:
        """Return the databases that can answer from an index, in the order in which to ask them."""
        found = [server for server in self.replicas if server.ids and index_id in server.ids]
        if found:
            first = next(self._turn) % len(found)
            found = found[first:] + found[:first]
        if self.primary.ids and index_id in self.primary.ids:
            found.append(self.primary)
        return found

    async def fetch(self, index_id: str, statement: Statement) -> list[tuple[Any, ...]]:
        """Ask a database; another one, if it cannot be reached or has not got the index.

        Raises:
            IndexNotReady: none can be reached, or the index is gone.
            Overloaded: no connection was free, or the search took too long.
        """
        problem: RagError = IndexNotReady("the database cannot be reached", retry_after_s=_RETRY_AFTER_S)
        for server in self.having(index_id):
            try:
                return await server.fetch(statement)
            except PoolTimeout:
                problem = Overloaded("no connection to the database was free", retry_after_s=_RETRY_AFTER_S)
                self.on_loss()
            except errors.QueryCanceled:
                raise Overloaded(
                    "the database took too long for the search", retry_after_s=_RETRY_AFTER_S
                ) from None
            except errors.UndefinedTable:
                problem = IndexNotReady(
                    "the index was replaced meanwhile; ask again", retry_after_s=_RETRY_AFTER_S
                )
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                logger.warning("database: a search failed: %s", reason(error))
                self.on_loss()
        raise problem

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever another index is to be served, or the database is lost; until cancelled.

        Where the connection breaks, whoever polls finds out later, and this tries again.
        """
        while True:
            with suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(
                    self.primary.database.url, **self.primary.database.arguments("listen")
                )
                async with connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    heard()
                    async for notice in connection.notifies():
                        if notice.payload == self.primary.database.schema:
                            heard()
            heard()
            await asyncio.sleep(_LISTEN_AGAIN_S)


def reason(error: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
