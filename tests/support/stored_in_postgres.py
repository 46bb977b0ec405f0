"""The complete content of an index in PostgreSQL, for comparison with another one."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from app.config.settings import Settings
from app.storage.postgres import schema
from app.storage.postgres.database import Database
from app.storage.postgres.generations import Generations
from tests.support.stored import Stored
from tests.support.timing import PATIENT

# PostgreSQL stores vectors with 16 bits per number.
TOLERANCE = 1e-3

_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'"


def database_of(settings: Settings) -> Database:
    assert settings.database.url is not None
    return Database(settings.database.url.get_secret_value(), settings.database.schema_name, PATIENT.database)


def stored_in_postgres(database: Database) -> Stored:
    """Read the published index."""
    with database.connect("test") as connection:
        schema.check(connection, database)
        generations = Generations(connection, database)
        current = generations.current_id()
        assert current is not None
        generation, table = generations.open(current), generations.chunks(current)
        documents = list(generation.documents())
        entries = [entry for record in documents for entry in table.entries(record.name)]
        assert table.count() == len(entries) == table.chunk_count == generation.manifest.chunks
        return Stored(
            documents,
            {
                entry.chunk.id: (
                    entry.chunk,
                    list(entry.vector),
                    dict(zip(entry.terms.terms, entry.terms.counts, strict=True)),
                )
                for entry in entries
            },
            table._tokens,
            dict(zip(*table.terms._saved.tolist(), strict=True)),
            table.average_length,
        )


def content_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table of the schema, with the transaction that wrote it."""
    with database.connect("test") as connection:
        names = sorted(name for (name,) in connection.execute(_TABLES, [database.schema]))
        select = sql.SQL("SELECT t.xmin::text, t.ctid::text, t::text FROM {} t ORDER BY ctid")
        return {name: connection.execute(select.format(database.table(name))).fetchall() for name in names}


def assert_nothing_left_over(database: Database) -> None:
    """Assert that chunks and statistics exist for the indexes that can be served, and for no others."""
    with database.connect("test") as connection:
        ids = set(Generations(connection, database).ids())
        names = {name for (name,) in connection.execute(_TABLES, [database.schema])}
        statement = sql.SQL("SELECT id FROM {}").format(database.table("statistics"))
        assert {index_id for (index_id,) in connection.execute(statement)} == ids
    assert {name for name in names if name.startswith("chunks_")} == {f"chunks_{each}" for each in ids}


def current_id(settings: Settings) -> str | None:
    database = database_of(settings)
    with database.connect("test") as connection:
        return Generations(connection, database).current_id()


def ids_of(settings: Settings) -> list[str]:
    database = database_of(settings)
    with database.connect("test") as connection:
        return Generations(connection, database).ids()
