"""The tables of indexes in PostgreSQL: writers make them and bring them up to date, readers only check them.

served              which index answers: one row
generations         an index each: its manifest, and its documents as JSON
statistics          of the chunks of an index, which may not be published yet: how many, and of which terms
embeddings          vectors that a provider was paid for, for the next run
chunks_<index>      a generation's chunks: one table each, so that an index is built aside, has HNSW and GIN
                    indexes of nothing but its own chunks, and goes away without leaving anything to vacuum
"""

from __future__ import annotations

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors, sql

from app.domain.errors import DatabaseError, SnapshotDamaged
from app.storage.postgres.database import NO_VECTOR, SET, Database

LAYOUT = 1
# Iterative scans came with it.
_LEAST_VECTOR_VERSION = (0, 8)

# Its version, and the schema that it is in.
VECTOR_EXTENSION = """
SELECT extversion, quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
WHERE extname = 'vector'
"""

_NAMES = ("generations", "statistics", "served", "embeddings", "layout")
_TABLES = """
CREATE TABLE IF NOT EXISTS {generations} (
    id text COLLATE "C" PRIMARY KEY,
    manifest jsonb NOT NULL,
    documents bytea NOT NULL,
    last_served timestamptz
);
CREATE TABLE IF NOT EXISTS {statistics} (
    id text COLLATE "C" PRIMARY KEY,
    chunks int NOT NULL,
    terms bytea NOT NULL,
    average_length float8 NOT NULL,
    tokens bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS {served} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id text NOT NULL REFERENCES {generations}
);
CREATE TABLE IF NOT EXISTS {embeddings} (
    scope text NOT NULL,
    text_hash bytea NOT NULL,
    vector bytea NOT NULL,
    kept timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, text_hash)
);
CREATE TABLE IF NOT EXISTS {layout} (version int NOT NULL);
INSERT INTO {layout} SELECT {version} WHERE NOT EXISTS (SELECT FROM {layout})
"""


def migrate(connection: psycopg.Connection, database: Database) -> None:
    """Make what is missing. For the writer, which holds the lock: others would do the same at the same time.

    Raises:
        DatabaseError: there is no pgvector, or the tables are those of a newer version of this service.
    """
    if _vector_version(connection) is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except (errors.UndefinedFile, errors.FeatureNotSupported, errors.InsufficientPrivilege) as error:
            raise DatabaseError(NO_VECTOR) from error
    with connection.transaction():
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(database.schema)))
        names = {name: database.table(name) for name in _NAMES}
        connection.execute(sql.SQL(_TABLES).format(version=LAYOUT, **names))
    check(connection, database)


def check(connection: psycopg.Connection, database: Database) -> bool:
    """Return whether there are tables; if so, make the connection read and write vectors.

    Raises:
        SnapshotDamaged: they are of another version of this service.
        DatabaseError: pgvector is missing or too old.
    """
    try:
        row = connection.execute(
            sql.SQL("SELECT version FROM {}").format(database.table("layout"))
        ).fetchone()
    except errors.UndefinedTable:
        return False
    if row != (LAYOUT,):
        raise SnapshotDamaged(
            f"the schema {database.schema} has layout {row and row[0]}, and this version knows {LAYOUT}: run "
            "the newest version of server and reindex, or set another DB_SCHEMA"
        )
    use_vectors(connection)
    return True


def use_vectors(connection: psycopg.Connection) -> None:
    """Make a connection understand pgvector's types, wherever the extension is installed.

    Raises:
        DatabaseError: it is missing or too old.
    """
    version = _vector_version(connection)
    if version is None or tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VECTOR_VERSION:
        raise DatabaseError(NO_VECTOR)
    register_vector(connection)


def _vector_version(connection: psycopg.Connection) -> str | None:
    row = connection.execute(VECTOR_EXTENSION).fetchone()
    if row is None:
        return None
    # The types and operators have to be found, in whichever schema they are.
    connection.execute(SET, ["search_path", row[1]])
    version: str = row[0]
    return version
