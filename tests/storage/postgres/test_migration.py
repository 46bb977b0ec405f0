"""`scripts/migrate_index.py`: an index goes from the disk to PostgreSQL and back as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy as shallow_copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap.indexing import make_disk_parts, make_postgres_storage
from app.config.settings import Settings
from app.domain.errors import (
    DatabaseUnavailable,
    IndexingCancelled,
    IndexingError,
    IndexLocked,
    SnapshotNotFound,
)
from app.indexing.migration import _BATCH, Migrated, migrate
from app.indexing.progress import OnProgress, Progress, Stage
from app.storage.contract import PreviousIndex, Recipe, Storage
from app.storage.disk.shard import ChunkShard
from app.storage.manifest import Manifest
from app.storage.postgres.chunk_table import ChunkTable
from tests.conftest import build, write_two_documents
from tests.fake_provider import FakeProvider
from tests.support.made_snapshots import flip, folder_of
from tests.support.mounts import small_disk
from tests.support.postgres import DATABASE, PASSWORD, PostgresServer
from tests.support.serving import ROOT, clean_environment, run_reindex, wait_for
from tests.support.stored import Stored, assert_same_index, stored
from tests.support.timing import PATIENT

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]

COMMAND = [sys.executable, str(ROOT / "scripts" / "migrate_index.py")]
# Of a number below 1 in 16 bits, as `halfvec` has it: half of the last of 11 binary digits.
ROUNDING = 2.0**-12


def copy(source: Storage, target: Storage, on_progress: OnProgress = lambda _: None) -> Migrated:
    return migrate(source, target, on_progress, threading.Event())


def served(storage: Storage) -> str | None:
    return next((each.id for each in storage.summaries() if each.current), None)


def manifest_of(storage: Storage) -> Manifest:
    with storage.previous_index(None) as before:
        assert before.manifest is not None
        return before.manifest


def stored_in(storage: Storage) -> Stored:
    """As `tests.support.stored.stored`, of either backend."""
    with storage.previous_index(None) as before:
        return _stored(before)


def _stored(before: PreviousIndex) -> Stored:
    chunks = before.chunks
    assert isinstance(chunks, ChunkShard | ChunkTable)
    entries = [entry for record in before.documents for entry in chunks.entries(record.name)]
    return Stored(
        before.documents,
        {
            each.chunk.id: (
                each.chunk,
                list(each.vector),
                dict(zip(each.terms.terms, each.terms.counts, strict=True)),
            )
            for each in entries
        },
        chunks._tokens,
        dict(zip(*chunks.terms.copy()._saved.tolist(), strict=True)),
        chunks.average_length,
    )


def write_many_sections(folder: Path, sections: int) -> None:
    words = ["leave", "travel", "train", "office", "pension", "training", "laptop", "holiday"]
    for start in range(0, sections, 100):
        text = "\n\n".join(
            f"## Section {number}\n\nThe {words[number % 8]} {number} of the {words[number % 7]} counts."
            for number in range(start, min(start + 100, sections))
        )
        (folder / f"rules-{start}.md").write_text(text)


@pytest.fixture
def both(settings: MakeSettings, database: dict[str, Any]) -> tuple[Settings, Settings]:
    """Settings over the same documents: an index on disk, which is built, and an empty database."""
    on_disk, in_postgres = settings(), settings(**database)
    write_two_documents(on_disk.documents.dir)
    (on_disk.documents.dir / "empty.md").write_text("")
    build(on_disk)
    return on_disk, in_postgres


@pytest.fixture
def storages(both: tuple[Settings, Settings]) -> tuple[Storage, Storage]:
    return make_disk_parts(both[0]).storage, make_postgres_storage(both[1], PATIENT.database)


@pytest.fixture
def environment(both: tuple[Settings, Settings]) -> dict[str, str]:
    made = both[1]
    assert made.database.url is not None
    return {
        "DOCUMENTS_DIR": str(made.documents.dir),
        "INDEX_DIR": str(made.index.dir),
        "DATABASE_URL": made.database.url.get_secret_value(),
        "DB_SCHEMA": made.database.schema_name,
        "PARSE_WORKERS": "1",
    }


def run(
    environment: dict[str, str], *arguments: str, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*within, *COMMAND, *arguments],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_failed(done: subprocess.CompletedProcess[str], said: str) -> None:
    """With one line that says it, and no secret."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = [each for each in done.stderr.splitlines() if "documents copied" not in each]
    assert line.startswith("Failed: ")
    assert said in line
    assert PASSWORD not in done.stderr


def test_an_index_is_unchanged_after_copying_there_and_back(
    settings: MakeSettings, database: dict[str, Any]
) -> None:
    """Documents, chunks, terms and manifest are equal, vectors within 16 bits. There are several batches."""
    on_disk, back = settings(), settings(index_dir=settings().index.dir / "back")
    write_two_documents(on_disk.documents.dir)
    (on_disk.documents.dir / "empty.md").write_text("")
    write_many_sections(on_disk.documents.dir, _BATCH + 100)
    build(on_disk)
    original = make_disk_parts(on_disk).storage
    in_postgres = make_postgres_storage(settings(**database), PATIENT.database)
    returned = make_disk_parts(back).storage

    told: list[str] = []
    there = copy(original, in_postgres, lambda each: told.append(str(each)))
    before = stored(on_disk.index.dir)
    assert there.chunks == len(before.chunks) > _BATCH
    assert told[-2] == f"14 of 14 documents copied, {there.chunks} chunks"
    assert_same_index(before, stored_in(in_postgres), atol=ROUNDING)

    again = copy(in_postgres, returned)
    assert_same_index(before, stored(back.index.dir), atol=ROUNDING)

    manifests = [manifest_of(each) for each in (original, in_postgres, returned)]
    assert [each.id for each in manifests] == [served(original), there.index, again.index]
    for each in manifests[1:]:
        for name in ("reader", "chunking", "embedding", "documents", "unread_documents", "chunks"):
            assert getattr(each, name) == getattr(manifests[0], name), name
    assert [each.engine for each in manifests] == [each.engine for each in (original, in_postgres, returned)]


def test_a_run_after_a_copy_finds_nothing_to_do(
    openai_settings: MakeSettings, database: dict[str, Any], provider: FakeProvider
) -> None:
    """In either place, nothing is published, and the provider is not asked."""
    on_disk, in_postgres = openai_settings(), openai_settings(**database)
    back = openai_settings(index_dir=on_disk.index.dir / "back")
    build(on_disk)
    provider.reset()
    copy(make_disk_parts(on_disk).storage, make_postgres_storage(in_postgres, PATIENT.database))
    copy(make_postgres_storage(in_postgres, PATIENT.database), make_disk_parts(back).storage)
    for target in (in_postgres, back):
        report = build(target)
        assert (report.published, report.embedded) == (False, 0)
    assert provider.embeddings.requests == []

    (on_disk.documents.dir / "leave.md").write_text("# Leave\n\nParental leave lasts 20 weeks.\n")
    for target in (in_postgres, back):
        report = build(target)
        assert (report.changes.changed, report.embedded) == (["leave.md"], 1)


def test_any_index_can_be_copied(openai_settings: MakeSettings, database: dict[str, Any]) -> None:
    """The settings may name another model."""
    build(openai_settings())
    others = openai_settings(embedding_provider="local", chunk_size=500, **database)
    target = make_postgres_storage(others, PATIENT.database)
    copy(make_disk_parts(others).storage, target)
    assert manifest_of(target).embedding.provider == "openai"


def test_the_previous_index_of_the_target_is_kept(
    storages: tuple[Storage, Storage], both: tuple[Settings, Settings]
) -> None:
    """As after every run, a rollback can return to it."""
    build(both[1])
    before = served(storages[1])
    done = copy(*storages)
    assert (served(storages[1]), done.index) == (done.index, served(storages[1]))
    assert storages[1].roll_back(None, lambda _: None) == before


def test_a_source_without_an_index_is_reported(storages: tuple[Storage, Storage]) -> None:
    """The target is not changed."""
    disk, postgres = storages
    before = served(disk)
    with pytest.raises(SnapshotNotFound, match="no intact index to copy"):
        copy(postgres, disk)
    assert (served(disk), served(postgres)) == (before, None)


def test_a_damaged_index_is_not_copied(
    storages: tuple[Storage, Storage], both: tuple[Settings, Settings]
) -> None:
    """The previous one is not copied in its place, either."""
    (both[0].documents.dir / "leave.md").write_text("Parental leave lasts 20 weeks.")
    index_id = build(both[0]).index
    assert index_id is not None
    flip(folder_of(both[0].index.dir, index_id) / "documents.jsonl")
    with pytest.raises(SnapshotNotFound, match="no intact index to copy"):
        copy(*storages)
    assert served(storages[1]) is None


def test_a_copy_needs_the_lock_of_the_target(storages: tuple[Storage, Storage]) -> None:
    disk, postgres = storages
    copy(disk, postgres)
    before = served(disk), served(postgres)
    for source, target in ((disk, postgres), (postgres, disk)):
        with target.writer(), pytest.raises(IndexLocked):
            copy(source, shallow_copy(target))
    assert (served(disk), served(postgres)) == before


def test_a_cancelled_copy_leaves_nothing(
    storages: tuple[Storage, Storage], both: tuple[Settings, Settings]
) -> None:
    """It may be cancelled before the first batch, or after the last."""
    disk, postgres = storages
    copy(disk, postgres)
    before = traces(*both)
    for source, target in ((disk, postgres), (postgres, disk)):
        for stage in (Stage.COPY, Stage.SAVE):
            assert last_stage_if_cancelled(stage, source, target) is stage
            assert traces(*both) == before


def last_stage_if_cancelled(stage: Stage, source: Storage, target: Storage) -> Stage:
    cancelled = threading.Event()
    told: list[Stage] = []

    def cancel(progress: Progress) -> None:
        told.append(progress.stage)
        if progress.stage is stage:
            cancelled.set()

    with pytest.raises(IndexingCancelled):
        migrate(source, target, cancel, cancelled)
    return told[-1]


def traces(on_disk: Settings, in_postgres: Settings) -> tuple[list[str | None], list[str], list[str]]:
    """The served indexes, and all that there is of indexes: tables, and folders."""
    assert in_postgres.database.url is not None
    with psycopg.connect(in_postgres.database.url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", [in_postgres.database.schema_name]
        ).fetchall()
    return (
        [
            served(make_disk_parts(on_disk).storage),
            served(make_postgres_storage(in_postgres, PATIENT.database)),
        ],
        sorted(name for (name,) in rows),
        sorted(path.name for path in (on_disk.index.dir / "snapshots").iterdir()),
    )


class MissingOne:
    """A source whose manifest has a chunk more than there are."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @contextmanager
    def previous_index(self, recipe: Recipe | None, *, full: bool = False) -> Iterator[PreviousIndex]:
        with self._storage.previous_index(recipe, full=full) as before:
            assert before.manifest is not None
            manifest = replace(before.manifest, chunks=before.manifest.chunks + 1)
            yield replace(before, manifest=manifest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def test_an_incomplete_copy_is_not_published(
    storages: tuple[Storage, Storage], both: tuple[Settings, Settings]
) -> None:
    """Nothing is left of it."""
    disk, postgres = storages
    copy(disk, postgres)
    before = traces(*both)
    for source, target in ((disk, postgres), (postgres, disk)):
        with pytest.raises(IndexingError, match="the index has 2 chunks instead of 3"):
            copy(MissingOne(source), target)
    assert traces(*both) == before


def test_a_broken_connection_leaves_the_previous_index(
    storages: tuple[Storage, Storage], both: tuple[Settings, Settings], postgres: PostgresServer
) -> None:
    """The next writer removes the incomplete copy."""
    copy(*storages)
    before = traces(*both)

    def cut(progress: Progress) -> None:
        if progress.stage is Stage.SAVE:
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE '%writer%'"
            )

    with pytest.raises(DatabaseUnavailable):
        migrate(*storages, cut, threading.Event())
    assert served(storages[1]) == before[0][1]
    advisory = "SELECT FROM pg_locks WHERE locktype = 'advisory'"
    wait_for(lambda: not postgres.execute(advisory), "the server to see that the writer is dead")
    with storages[1].writer():
        pass
    assert traces(*both) == before


def test_the_command_copies_in_both_directions(environment: dict[str, str], tmp_path: Path) -> None:
    """It prints one line, or JSON for programs."""
    done = run(environment, "--to", "postgres")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stderr
    assert "2 documents, 2 chunks, copied from" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr

    done = run(environment | {"INDEX_DIR": str(tmp_path / "back")}, "--to", "disk", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {"source", "index", "documents", "chunks", "seconds"}
    assert (result["documents"], result["chunks"]) == (2, 2)
    assert (tmp_path / "back" / "CURRENT").read_text().strip() == result["index"]


def test_a_database_without_an_index_is_reported(environment: dict[str, str]) -> None:
    done = run_reindex(environment, "--list")
    assert (done.returncode, done.stdout) == (0, "There is no index in the database\n")


@pytest.mark.parametrize("arguments", [[], ["--to", "s3"], ["--from", "disk"]])
def test_wrong_usage_is_status_2(environment: dict[str, str], arguments: list[str]) -> None:
    done = run(environment, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_a_missing_database_url_is_wrong_usage(environment: dict[str, str]) -> None:
    done = run(environment | {"DATABASE_URL": ""}, "--to", "disk")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Wrong setting: DATABASE_URL: set it to the database to copy to or from"
    ]


def test_an_unreachable_database_is_reported_in_one_line(environment: dict[str, str]) -> None:
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:9/{DATABASE}"
    for target in ("postgres", "disk"):
        done = run(environment | {"DATABASE_URL": url}, "--to", target)
        assert_failed(done, "the database cannot be reached")


def test_a_role_that_may_not_write_is_reported_in_one_line(
    environment: dict[str, str], postgres: PostgresServer
) -> None:
    postgres.execute(f"CREATE ROLE migration_reader LOGIN PASSWORD '{PASSWORD}'")
    done = run(environment | {"DATABASE_URL": postgres.url(user="migration_reader")}, "--to", "postgres")
    assert_failed(done, "reindex as the owner")


def test_a_full_disk_is_reported_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing but the lock file is left on the disk."""
    assert run(environment, "--to", "postgres").returncode == 0
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", "10M") as disk:
        done = run(
            environment | {"INDEX_DIR": str(disk.folder / "index")}, "--to", "disk", within=disk.within
        )
        assert_failed(done, "No space left on device")
        assert list((disk.content / "index" / "snapshots").iterdir()) == []
