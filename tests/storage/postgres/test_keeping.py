"""Indexes in PostgreSQL that are kept, gone back to and removed, by one writer at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.bootstrap.indexing import make_storage
from app.config.settings import Settings
from app.domain.errors import IndexingError, IndexLocked, SnapshotNotFound
from app.storage.postgres.generations import Generations
from tests.conftest import build, indexer_of, plan, write_two_documents
from tests.support.postgres import PostgresServer
from tests.support.settings import with_values
from tests.support.stored_in_postgres import (
    assert_nothing_left_over,
    content_of,
    current_id,
    database_of,
    ids_of,
    stored_in_postgres,
)
from tests.support.timing import PATIENT

pytestmark = pytest.mark.slow


@pytest.fixture
def made(settings: Callable[..., Settings], database: dict[str, Any]) -> Settings:
    """Two documents, with an index of them."""
    made = settings(**database)
    write_two_documents(made.documents.dir)
    build(made)
    return made


def write(settings: Settings, weeks: int) -> None:
    (settings.documents.dir / "leave.md").write_text(f"Leave lasts {weeks} weeks.")


def test_a_rollback_serves_an_older_index_and_the_next_run_starts_from_it(made: Settings) -> None:
    first = current_id(made)
    old = stored_in_postgres(database_of(made))
    write(made, 20)
    second = build(made).index
    assert indexer_of(made).roll_back() == first == current_id(made)
    assert stored_in_postgres(database_of(made)) == old
    summaries = make_storage(made, PATIENT.database).summaries()
    assert [(each.id, each.current, each.problem) for each in summaries] == [
        (second, False, None),
        (first, True, None),
    ]
    assert indexer_of(made).roll_back(second) == second == current_id(made)
    with pytest.raises(SnapshotNotFound, match=f"there are {first}, {second}"):
        indexer_of(made).roll_back("20200101T000000Z-abcdef")
    indexer_of(made).roll_back()
    report = build(made)
    assert (report.changes.changed, report.published) == (["leave.md"], True)


def test_old_indexes_are_removed_unless_served_recently(made: Settings, postgres: PostgresServer) -> None:
    """A question may still be on its way to one."""
    settings = with_values(made, keep_snapshots=2)
    for number in range(3):
        write(made, number)
        build(settings)
    ids = ids_of(settings)
    assert len(ids) == 4
    postgres.execute(
        f"UPDATE {made.database.schema_name}.generations SET last_served = last_served - interval '1 hour'",
        "rag",
    )
    assert not build(settings).published
    assert ids_of(settings) == ids[-2:]
    assert_nothing_left_over(database_of(settings))


def test_an_index_in_use_is_removed_by_a_later_run(made: Settings, postgres: PostgresServer) -> None:
    """A long search does not hold up a run for longer than its lock timeout."""
    settings = with_values(made, keep_snapshots=1)
    first = current_id(made)
    write(made, 20)
    build(made)
    postgres.execute(f"UPDATE {made.database.schema_name}.generations SET last_served = '2020-01-01'", "rag")
    database = database_of(made)
    with database.connect("test") as connection, connection.transaction():
        connection.execute(f'SELECT count(*) FROM {made.database.schema_name}."chunks_{first}"')
        build(settings)
    assert len(ids_of(settings)) == 1
    build(settings)
    assert_nothing_left_over(database)


def test_the_tables_of_a_killed_run_are_removed_by_the_next(made: Settings) -> None:
    database = database_of(made)
    before = content_of(database)
    with database.connect("test") as connection:
        generations = Generations(connection, database)
        generations.create_chunks("20200101T000000Z-abcdef", dimensions=3, average_length=5)
    assert len(content_of(database)) == len(before) + 1
    assert not build(made).published
    assert content_of(database) == before


def test_a_second_writer_ends_at_once_and_names_the_first(made: Settings) -> None:
    """Readers and writers of other schemas are not in its way."""
    with make_storage(made, PATIENT.database).writer():
        with pytest.raises(
            IndexLocked, match=f"the schema {made.database.schema_name} .*rag-service writer on "
        ):
            build(made)
        with pytest.raises(IndexLocked):
            indexer_of(made).roll_back()
        assert not plan(made).changes
        assert make_storage(made, PATIENT.database).summaries()
    assert not build(made).published


def test_a_cancelled_run_leaves_nothing(made: Settings) -> None:
    before = stored_in_postgres(database_of(made))
    write(made, 20)
    cancelled = threading.Event()
    with pytest.raises(IndexingError, match="cancelled"):
        indexer_of(made).build(lambda _: cancelled.set(), cancelled)
    assert stored_in_postgres(database_of(made)) == before
    assert_nothing_left_over(database_of(made))
