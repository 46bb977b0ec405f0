"""Connections to PostgreSQL, and what its errors mean to an operator."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import psycopg
from psycopg import errors, sql
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads

from app.domain.errors import DatabaseError, DatabaseUnavailable
from app.storage.postgres.timeouts import TIMEOUTS, DatabaseTimeouts

NO_VECTOR = (
    "the database has no pgvector, or one older than 0.8: install it, and run CREATE "
    "EXTENSION vector, or ALTER EXTENSION vector UPDATE, as a superuser"
)

# The operating system would take minutes to find that the other machine is gone.
_KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
SET = "SELECT set_config(%s, %s, false)"
_INTERVAL_S = 0.1

Result = TypeVar("Result")


class Connection(psycopg.Connection[TupleRow]):
    """One that ends when the server says nothing for long: libpq would wait for ever.

    Attributes:
        silence_s: how long; None where statements may take any time.
    """

    silence_s: float | None = None

    def use(self, settings: Mapping[str, str]) -> None:
        """Change settings of this connection."""
        for setting in settings.items():
            self.execute(SET, setting)

    def wait(self, gen: PQGen[Result], interval: float = _INTERVAL_S, timeout: float | None = None) -> Result:
        try:
            return super().wait(gen, interval, self.silence_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise


class AsyncConnection(psycopg.AsyncConnection[TupleRow]):
    """See `Connection`."""

    silence_s: float | None = None

    async def wait(
        self,
        gen: PQGen[Result],
        interval: float = _INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's
    ) -> Result:
        try:
            return await super().wait(gen, interval, self.silence_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await self.close()
            raise


@dataclass(frozen=True)
class Database:
    """A database that holds indexes.

    Attributes:
        url: libpq's connection string; never shown, since it may hold a password.
        schema: which holds all tables of one service.
    """

    url: str = field(repr=False)
    schema: str = "rag"
    timeouts: DatabaseTimeouts = TIMEOUTS

    def table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    def chunk_table(self, index_id: str) -> sql.Identifier:
        return self.table(f"chunks_{index_id}")

    def arguments(self, purpose: str) -> dict[str, Any]:
        """Return the arguments of `psycopg.connect`, besides the address."""
        return {
            "autocommit": True,
            "connect_timeout": self.timeouts.connect_s,
            "application_name": f"rag-service {purpose} on {socket.gethostname()}"[:63],
            **_KEEPALIVES,
        }

    def connect(self, purpose: str) -> Connection:
        """A connection for one thread, in autocommit mode.

        Raises:
            DatabaseUnavailable
        """
        try:
            connection = Connection.connect(self.url, **self.arguments(purpose))
        except psycopg.Error as error:
            raise DatabaseUnavailable(_why_refused(str(error))) from error
        set_json_loads(orjson.loads, connection)
        return connection


# What is wrong and what to do. What the database said itself goes to the log.
_ADVICE: dict[type[psycopg.Error], str] = {
    errors.DiskFull: "the database's disk is full: make room there, then run it again",
    errors.TooManyConnections: "the database has no connection left: lower DB_POOL_MAX, or raise its limit",
    errors.InsufficientPrivilege: "the database's role may not do this: reindex as the owner of the schema",
    errors.ReadOnlySqlTransaction: "the database is read-only: DATABASE_URL must lead to the primary",
    errors.InvalidCatalogName: "there is no such database: create it, or correct DATABASE_URL",
    errors.InvalidPassword: "the database refuses the password of DATABASE_URL",
    errors.InvalidAuthorizationSpecification: "the database refuses the role of DATABASE_URL",
    errors.QueryCanceled: "the database took longer than DB_STATEMENT_TIMEOUT_S",
    errors.DeadlockDetected: "the database found a deadlock with another program: run it again",
    errors.OutOfMemory: "the database is out of memory: lower DB_MAINTENANCE_MB",
}


# libpq gives no code with a connection that is refused. Said in another language, it is in the log.
_REFUSALS: dict[str, type[psycopg.Error]] = {
    "too many connections for": errors.TooManyConnections,
    "too many clients already": errors.TooManyConnections,
    "connection slots are reserved": errors.TooManyConnections,
    "password authentication failed": errors.InvalidPassword,
    'FATAL:  database "': errors.InvalidCatalogName,
    'FATAL:  role "': errors.InvalidAuthorizationSpecification,
    "no pg_hba.conf entry": errors.InvalidAuthorizationSpecification,
}
_UNREACHABLE = "the database cannot be reached"


def _why_refused(said: str) -> str:
    return next((_ADVICE[kind] for part, kind in _REFUSALS.items() if part in said), _UNREACHABLE)


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise psycopg's errors as ours, whose texts hold nothing of what the database said.

    Raises:
        DatabaseUnavailable: it cannot be reached, or has gone away.
        DatabaseError: it refuses.
    """
    try:
        yield
    except psycopg.Error as error:
        raise as_indexing_error(error) from error


def as_indexing_error(error: psycopg.Error) -> DatabaseError:
    """Return the error that tells an operator what to do about one of psycopg's."""
    for kind, advice in _ADVICE.items():
        if isinstance(error, kind):
            return DatabaseError(advice)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(_UNREACHABLE)
    return DatabaseError(f"the database refused ({type(error).__name__}); the log has what it said")
