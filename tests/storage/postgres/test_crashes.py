"""A reindex into PostgreSQL that is killed with SIGKILL before something that it sends.

It is killed at some of its statements, with `--soak` at every one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.config.settings import Settings
from app.domain.errors import IndexLocked
from app.storage.postgres.database import Database
from app.storage.postgres.generations import Generations
from tests.conftest import build
from tests.support.killed_statement import DONE, KILLED, reindex
from tests.support.postgres import PostgresServer
from tests.support.serving import wait_for
from tests.support.settings import with_values
from tests.support.stored import Stored, assert_same_index
from tests.support.stored_in_postgres import (
    TOLERANCE,
    assert_nothing_left_over,
    database_of,
    stored_in_postgres,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_UNCHANGED = {
    "travel.md": "# Travel\n\nTrains are booked in second class.\n",
    "security.md": "# Security\n\n## Badges\n\nBadges are worn.\n\n## Visitors\n\nThey are met.\n",
}
_PARKING = "# Parking\n\nThere are forty places behind the hall.\n"
_OLD = {
    **_UNCHANGED,
    "leave.md": "Leave lasts 16 weeks.\n",
    "parking.md": _PARKING,
    "pets.md": "Dogs stay at home.\n",
}
# A document is changed, one is renamed, one is removed.
_NEW = {**_UNCHANGED, "leave.md": "Leave lasts 20 weeks.\n", "site/parking.md": _PARKING}


@dataclass(frozen=True)
class Scenario:
    """
    Attributes:
        settings: of a database; each trial has a copy of it.
        before, after: what is served; None where nothing is.
        exchanges: with the database, of a run that nothing disturbs.
    """

    settings: Settings
    rollback: bool
    before: Stored | None
    after: Stored
    exchanges: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("crashes")
    for name, documents in {"old": _OLD, "new": _NEW}.items():
        for file, text in documents.items():
            (made / name / file).parent.mkdir(parents=True, exist_ok=True)
            (made / name / file).write_text(text)
    return made


@pytest.fixture(scope="module", params=["first_build", "change", "rollback"])
def scenario(request: pytest.FixtureRequest, postgres: PostgresServer, folder: Path) -> Iterator[Scenario]:
    """An empty database, one with an index of other documents, or one with two indexes."""
    runs = {"first_build": [], "change": ["old"], "rollback": ["old", "new"]}[request.param]
    name = f"crashes_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        settings = settings_of(postgres, name, folder / "new")
        for documents in runs:
            build(with_values(settings, documents_dir=folder / documents), force=True)
        before = stored_in_postgres(database_of(settings)) if runs else None
        is_rollback = request.param == "rollback"
        with copied(postgres, settings) as trial:
            status, exchanges = reindex(trial, rollback=is_rollback)
            assert status == DONE
            after = stored_in_postgres(database_of(trial))
        yield Scenario(settings, is_rollback, before, after, exchanges)
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_kill_at_any_statement_leaves_the_old_index_or_the_new(
    scenario: Scenario, postgres: PostgresServer, soak: bool
) -> None:
    """That index is intact, the next run succeeds, and no table of the killed run is left."""
    trials = scenario.exchanges if soak else 3
    # The last ones publish.
    numbers = {round(scenario.exchanges * trial / trials) for trial in range(1, trials + 1)} | {1}

    def check(number: int) -> None:
        with copied(postgres, scenario.settings) as trial:
            check_kill(scenario, trial, number)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(check, sorted(numbers)))


def check_kill(scenario: Scenario, trial: Settings, number: int) -> None:
    status, _ = reindex(trial, rollback=scenario.rollback, kill_before=number)
    assert status == KILLED, f"{number} of {scenario.exchanges}"
    database = database_of(trial)
    wait_for(lambda: not is_locked(database), "the server to see that the writer is dead")
    served = served_in(database)
    assert served is None or served in ids_of(database)
    if served is None:
        assert scenario.before is None
    else:
        content = stored_in_postgres(database)
        expected = [each for each in (scenario.before, scenario.after) if each]
        assert any(is_same(content, each) for each in expected), f"{number} of {scenario.exchanges}"
    assert reindex(trial)[0] == DONE
    # After a rollback, the documents are still those of the newer index.
    final = scenario.before if scenario.rollback else scenario.after
    assert final is not None
    assert_same_index(stored_in_postgres(database), final, atol=TOLERANCE)
    assert_nothing_left_over(database)


@contextmanager
def copied(postgres: PostgresServer, settings: Settings) -> Iterator[Settings]:
    """A database of its own with the same content."""
    name = f"trial_{secrets.token_hex(4)}"
    template = database_of(settings).url.rsplit("/", 1)[1]
    wait_for(lambda: has_no_connection(postgres, template), "the last connection to end")
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield settings_of(postgres, name, settings.documents.dir)
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def settings_of(postgres: PostgresServer, name: str, documents: Path) -> Settings:
    values: dict[str, Any] = {"parse_workers": 1, "documents_dir": documents, "index_dir": documents / "none"}
    return Settings(database_url=SecretStr(postgres.url(name)), **values)


def has_no_connection(postgres: PostgresServer, name: str) -> bool:
    return not postgres.execute("SELECT FROM pg_stat_activity WHERE datname = %s", values=[name])


def is_locked(database: Database) -> bool:
    with database.connect("test") as connection:
        try:
            with Generations(connection, database).lock():
                return False
        except IndexLocked:
            return True


def served_in(database: Database) -> str | None:
    current: str | None = read(database, Generations.current_id)
    return current


def ids_of(database: Database) -> list[str]:
    return read(database, Generations.ids) or []


def read(database: Database, what: Callable[[Generations], Any]) -> Any:
    """None where there are no tables yet."""
    with database.connect("test") as connection:
        if connection.execute("SELECT to_regclass('rag.layout')").fetchone() == (None,):
            return None
        return what(Generations(connection, database))


def is_same(one: Stored, other: Stored) -> bool:
    try:
        assert_same_index(one, other, atol=TOLERANCE)
    except AssertionError:
        return False
    return True
