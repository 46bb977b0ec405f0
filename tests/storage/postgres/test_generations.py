"""A run into PostgreSQL: it pays for what has changed, and leaves what a build from nothing leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap.indexing import make_storage
from app.config.settings import Settings
from app.domain.errors import IndexingError, TooManyDocumentsLost
from app.storage.postgres.rows import normalized
from tests.conftest import build, plan
from tests.fake_provider import FakeProvider, faults
from tests.support.postgres import PostgresServer, drop_schema
from tests.support.settings import with_values
from tests.support.stored import assert_same_index, stored
from tests.support.stored_in_postgres import (
    TOLERANCE,
    assert_nothing_left_over,
    content_of,
    current_id,
    database_of,
    stored_in_postgres,
)
from tests.support.timing import PATIENT

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Sent = Callable[[], list[str]]
Check = Callable[[Settings], None]


def paragraph(number: int) -> str:
    return f"## Rule {number}\n\nThe rule of number {number} is that thing {number} is done.\n\n"


DOCUMENT = "# Rules\n\n" + "".join(paragraph(number) for number in range(6))
LONG = " ".join(f"Sentence {number} is here." for number in range(60))


@pytest.fixture
def made(openai_settings: MakeSettings, database: dict[str, Any]) -> Settings:
    """Documents of one, six and some chunks, and one that cannot be read; with an index of them."""
    settings = openai_settings(**database, max_shrink=0.5)
    (settings.documents.dir / "rules.md").write_text(DOCUMENT)
    (settings.documents.dir / "long.txt").write_text(LONG)
    (settings.documents.dir / "broken.pdf").write_text("not a PDF")
    build(settings)
    return settings


@pytest.fixture
def sent(provider: FakeProvider) -> Sent:
    """The texts that were sent to be embedded since it was asked last."""

    def take() -> list[str]:
        texts = [text for request in provider.embeddings.requests for text in request.body["input"]]
        provider.embeddings.requests.clear()
        return texts

    return take


@pytest.fixture
def assert_as_if_built_anew(postgres: PostgresServer) -> Iterator[Check]:
    schemas = []

    def check(settings: Settings) -> None:
        anew = with_values(settings, db_schema=f"{settings.database.schema_name}_anew")
        schemas.append(anew.database.schema_name)
        build(anew)
        made, other = (stored_in_postgres(database_of(each)) for each in (settings, anew))
        assert_same_index(made, other, atol=TOLERANCE)
        assert_nothing_left_over(database_of(settings))

    yield check
    for name in schemas:
        drop_schema(postgres, name)


def assert_as_if_built_on_disk(settings: Settings) -> None:
    """Where vectors are kept as long as they come, and this one's are at length 1."""
    on_disk = with_values(settings, database_url=None)
    build(on_disk)
    other = stored(on_disk.index.dir)
    for chunk_id, (chunk, vector, counts) in other.chunks.items():
        other.chunks[chunk_id] = chunk, normalized(vector).tolist(), counts
    assert_same_index(stored_in_postgres(database_of(settings)), other, atol=TOLERANCE)
    assert_nothing_left_over(database_of(settings))


def added(folder: Path) -> None:
    (folder / "added.md").write_text("Something new.")


def changed(folder: Path) -> None:
    (folder / "rules.md").write_text(DOCUMENT.replace("thing 3 is", "thing 3 is never"))


def renamed(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "rules.md").rename(folder / "new" / "rules.md")


def removed(folder: Path) -> None:
    (folder / "travel.md").unlink()


def copied(folder: Path) -> None:
    shutil.copy(folder / "rules.md", folder / "copy.md")


def swapped(folder: Path) -> None:
    (folder / "leave.md").rename(folder / "aside")
    (folder / "travel.md").rename(folder / "leave.md")
    (folder / "aside").rename(folder / "travel.md")


def everything(folder: Path) -> None:
    for change in (swapped, copied, renamed, added):
        change(folder)
    removed(folder)


@pytest.mark.parametrize(
    ("change", "new_texts"),
    [(added, 1), (changed, 1), (renamed, 0), (removed, 0), (copied, 0)],
)
def test_a_run_embeds_only_new_texts_and_equals_a_build_on_disk(
    made: Settings, sent: Sent, change: Callable[[Path], None], new_texts: int
) -> None:
    sent()
    change(made.documents.dir)
    report = build(made)
    assert (len(sent()), report.embedded, report.published) == (new_texts, new_texts, True)
    assert_as_if_built_on_disk(made)


def test_many_changes_equal_a_build_from_nothing(
    made: Settings, sent: Sent, assert_as_if_built_anew: Check
) -> None:
    """The result also equals that on disk."""
    sent()
    everything(made.documents.dir)
    assert build(made).published
    assert len(sent()) == 1
    assert_as_if_built_anew(made)
    assert_as_if_built_on_disk(made)


def test_another_chunk_size_embeds_only_new_texts(
    made: Settings, sent: Sent, assert_as_if_built_anew: Check
) -> None:
    """All documents are read, and texts that do not change keep their vectors."""
    sent()
    smaller = with_values(made, chunk_size=500, chunk_overlap=0)
    assert build(smaller).published
    new = sent()
    assert new
    assert all(text in LONG for text in new)
    assert_as_if_built_anew(smaller)


def test_a_full_run_reuses_nothing_of_the_index(
    made: Settings, sent: Sent, assert_as_if_built_anew: Check
) -> None:
    """The vectors that a provider was paid for come from the cache."""
    sent()
    assert build(made, full=True).published
    assert sent() == []
    assert_as_if_built_anew(made)


def test_a_run_without_changes_writes_nothing(made: Settings, sent: Sent) -> None:
    """It writes not a single row, even if files were touched."""
    before = content_of(database_of(made))
    sent()
    for path in made.documents.dir.iterdir():
        os.utime(path, (1, 1))
    report = build(made)
    assert (report.published, sent()) == (False, [])
    assert content_of(database_of(made)) == before


def test_embeddings_survive_a_failed_run(
    openai_settings: MakeSettings, database: dict[str, Any], provider: FakeProvider, sent: Sent
) -> None:
    """The next run embeds the rest, and nothing of the failed run's index is left."""
    settings = openai_settings(
        **database, embedding_batch_size=1, embedding_concurrency=1, embedding_retry_s=0
    )
    for number in range(8):
        (settings.documents.dir / f"{number}.md").write_text(f"Text of number {number}.")
    fail_after(provider, 5)
    with pytest.raises(IndexingError, match="embedding failed"):
        build(settings)
    assert current_id(settings) is None
    assert_nothing_left_over(database_of(settings))
    first = set(sent()[:5])
    provider.embeddings.fault = None
    build(settings)
    assert len(first) == 5
    assert first.isdisjoint(sent())


def test_a_plan_reports_and_writes_nothing(made: Settings, sent: Sent) -> None:
    everything(made.documents.dir)
    before = content_of(database_of(made))
    sent()
    planned = plan(made)
    assert (content_of(database_of(made)), sent()) == (before, [])
    done = build(made)
    assert (planned.changes, planned.embedded, planned.chunks) == (done.changes, done.embedded, done.chunks)
    assert (planned.published, planned.planned, planned.embedded) == (False, True, 1)


def test_a_plan_needs_no_tables_and_makes_none(
    openai_settings: MakeSettings, database: dict[str, Any], postgres: PostgresServer
) -> None:
    settings = openai_settings(**database)
    planned = plan(settings)
    assert (planned.index, planned.embedded) == (None, 2)
    assert content_of(database_of(settings)) == {}
    assert make_storage(settings, PATIENT.database).summaries() == []
    assert postgres.execute("SELECT to_regnamespace(%s)::text", "rag", [settings.database.schema_name]) == [
        (None,)
    ]


def test_many_lost_documents_stop_a_run(made: Settings, sent: Sent) -> None:
    """A volume that is not mounted must not empty the index. Nothing is paid for before that is noticed."""
    before = stored_in_postgres(database_of(made))
    sent()
    for name in ("leave.md", "travel.md", "rules.md"):
        (made.documents.dir / name).unlink()
    added(made.documents.dir)
    with pytest.raises(TooManyDocumentsLost, match=r"3 of 4 documents.*leave\.md.*--force"):
        build(made)
    assert sent() == []
    assert stored_in_postgres(database_of(made)) == before
    assert build(made, force=True).published


def fail_after(provider: FakeProvider, requests: int) -> None:
    provider.embeddings.fault = faults.later(faults.status(401), after=requests)
