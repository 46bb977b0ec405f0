"""One database that answers questions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import errors
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from app.domain.errors import DatabaseError, DatabaseUnavailable, IndexingError
from app.storage.postgres import schema
from app.storage.postgres.chunk_table import ChunkTable
from app.storage.postgres.database import (
    NO_VECTOR,
    SET,
    AsyncConnection,
    Connection,
    Database,
    database_errors,
)
from app.storage.postgres.generations import Generation, Generations
from app.storage.postgres.statement import SEARCHING, Statement

# After this, a pool leaves it to the next question to try again: its own pauses grow to minutes.
_RECONNECT_S = 2.0


@dataclass(frozen=True)
class Limits:
    """Limits of the connections and searches of a server.

    Attributes:
        pool_min, pool_max: connections to each database, of each worker.
        wait_s: for one of them to be free.
        statement_s: for a search.
        ef_search: HNSW's; more finds more, and takes longer.
    """

    pool_min: int
    pool_max: int
    wait_s: float
    statement_s: float
    ef_search: int

    def session(self) -> dict[str, str]:
        """Settings of a connection that searches."""
        return {
            "statement_timeout": f"{self.statement_s * 1000:.0f}",
            "default_transaction_read_only": "on",
            "idle_in_transaction_session_timeout": "10s",
            "hnsw.ef_search": str(self.ef_search),
            **SEARCHING,
        }


class PoolObserver(Protocol):
    """Watches the pools of connections, as metrics do."""

    def pool(self, server: str, used: int, idle: int, waiting: int) -> None:
        """Note how many connections to a database there are, and how many searches wait for one."""


class _NoTables(DatabaseError):
    """None was there when it was connected."""


class Replica:
    """One database, as a server of this service sees it.

    Attributes:
        ids: of the indexes that it was found to have; None while it cannot be reached.
        problem: why the last look at it failed.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self.database = database
        self.ids: frozenset[str] | None = None
        self.problem: str | None = None
        self._limits = limits
        self._timeouts = database.timeouts
        self._pool: AsyncConnectionPool[AsyncConnection] | None = None
        self._control: Connection | None = None

    async def open(self) -> None:
        """Begin to connect; nobody waits for it."""
        self._pool = AsyncConnectionPool(
            self.database.url,
            connection_class=AsyncConnection,
            kwargs=self.database.arguments("server"),
            min_size=self._limits.pool_min,
            max_size=self._limits.pool_max,
            timeout=self._limits.wait_s,
            reconnect_timeout=_RECONNECT_S,
            check=self._check,
            configure=self._configure,
            open=False,
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close(timeout=self._timeouts.grace_s)
        self._lose_control()

    def tell(self, name: str, observer: PoolObserver) -> None:
        """Report the state of the pool under a name."""
        if self._pool is not None:
            stats = self._pool.get_stats()
            idle = stats["pool_available"]
            used = stats["pool_size"] - idle
            observer.pool(name, used, idle, stats.get("requests_waiting", 0))

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Send a statement by a connection of the pool; return its rows.

        Raises:
            psycopg.Error: the database cannot be reached, or refuses.
        """
        assert self._pool is not None, "open it first"  # noqa: S101
        async with self._pool.connection() as connection:
            connection.silence_s = self._search_s
            cursor = await connection.execute(statement.text, statement.values, binary=True)
            return await cursor.fetchall()

    def look(self) -> str | None:
        """Return the index to be served, in this database's view; None where there is none. For one thread.

        Raises:
            DatabaseUnavailable: it cannot be reached.
            DatabaseError: it refuses.
            SnapshotDamaged: its tables are of another version of this service.
        """
        try:
            with database_errors(), suppress(errors.UndefinedTable, _NoTables):
                generations = Generations(self._controlled(self._timeouts.silence_s), self.database)
                self.ids = frozenset(generations.ids())
                return generations.current_id()
        except IndexingError as error:
            # Where it only refuses, it may still answer questions.
            if isinstance(error, DatabaseUnavailable):
                self.ids = None
            self._lose_control()
            raise
        self.ids = frozenset()
        # The next connection will understand the types that come with the tables.
        self._lose_control()
        return None

    def load(self, index_id: str) -> tuple[Generation, ChunkTable]:
        """Load an index, with the connection of the thread that looks.

        Raises:
            DatabaseError: the database cannot be reached, or refuses.
            SnapshotDamaged: the index is gone, or of another version of this service.
        """
        with database_errors():
            generations = Generations(self._controlled(self._search_s), self.database)
            return generations.open(index_id), generations.chunks(index_id)

    def _controlled(self, silence_s: float) -> Connection:
        """Return the connection by which indexes are looked for and loaded. For one thread."""
        if self._control is None or self._control.closed:
            self._control = self.database.connect("watch")
            self._control.silence_s = silence_s
            # First the extension: it would forget what it does not know yet. Tables that are made after this
            # look would be found by a connection that does not understand them.
            if not schema.check(self._control, self.database):
                self._lose_control()
                raise _NoTables("there is no index in the database: run make reindex")
            self._control.use(self._limits.session())
        self._control.silence_s = silence_s
        return self._control

    def _lose_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    @property
    def _search_s(self) -> float:
        """The time limit of a search, which the server should end by itself a little earlier."""
        return self._limits.statement_s + self._timeouts.grace_s

    async def _configure(self, connection: AsyncConnection) -> None:
        connection.silence_s = self._timeouts.silence_s
        set_json_loads(orjson.loads, connection)
        row = await (await connection.execute(schema.VECTOR_EXTENSION)).fetchone()
        if row is None:  # of no use, and tried again when there is something to search
            raise psycopg.OperationalError(NO_VECTOR)
        await connection.execute(SET, ["search_path", row[1]])
        await register_vector_async(connection)
        for setting in self._limits.session().items():
            await connection.execute(SET, setting)

    async def _check(self, connection: AsyncConnection) -> None:
        connection.silence_s = self._timeouts.silence_s
        await AsyncConnectionPool.check_connection(connection)
