"""Check PostgreSQL: the connection, pgvector, the schema, the role's rights and the index."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.index import describe
from app.config.settings import Settings
from app.domain.errors import DatabaseError, IndexingError
from app.storage.postgres import schema
from app.storage.postgres.database import NO_VECTOR, Database, database_errors
from app.storage.postgres.generations import Generations

_MAY_WRITE = """
SELECT current_user, pg_is_in_recovery(),
       CASE WHEN to_regnamespace(%(schema)s) IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege(%(schema)s, 'CREATE') END
"""


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check the primary and its replicas; the index is checked on the primary only."""
    assert settings.database.url is not None  # noqa: S101 - the caller has checked it
    urls = [settings.database.url, *settings.database.read_urls]
    for number, url in enumerate(urls):
        name = "database" if number == 0 else f"replica {number}"
        database = Database(url.get_secret_value(), settings.database.schema_name)
        try:
            with database.connect("doctor") as connection, database_errors():
                yield from _look(settings, name, database, connection, with_index=number == 0)
        except DatabaseError as error:
            advice = f"check DATABASE_{'READ_URLS' if number else 'URL'}, and whether the server is up"
            yield fail(name, error.reason, advice)
        except IndexingError as error:
            yield fail(name, str(error))


def _look(
    settings: Settings, name: str, database: Database, connection: psycopg.Connection, *, with_index: bool
) -> Iterator[Finding]:
    vector = connection.execute(schema.VECTOR_EXTENSION).fetchone()
    role, is_replica, may_write = _role(connection, database)
    version = connection.info.server_version // 10_000
    if vector is None:
        yield (warn if may_write else fail)(name, "the extension vector is missing", NO_VECTOR)
        return
    rights = "may reindex" if may_write and not is_replica else "may only read"
    yield ok(name, f"PostgreSQL {version}, pgvector {vector[0]}, role {role} {rights}")
    if not schema.check(connection, database):
        yield fail(name, f"the schema {database.schema} has no index", "run make reindex as its owner")
    elif with_index:
        yield from _index(settings, Generations(connection, database))


def _role(connection: psycopg.Connection, database: Database) -> tuple[str, bool, bool]:
    row = connection.execute(_MAY_WRITE, {"schema": database.schema}).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has a row
    return row[0], row[1], row[2]


def _index(settings: Settings, generations: Generations) -> Iterator[Finding]:
    current = generations.current_id()
    if current is None:
        yield fail("index", "the database has no index yet", "run make reindex")
        return
    generation = generations.open(current)
    generations.check_count(current, generation.manifest.chunks)
    yield from describe(settings, generation.manifest)
