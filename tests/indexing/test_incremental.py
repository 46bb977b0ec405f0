"""A run pays for what has changed, and the result is as if everything had been built anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from app.bootstrap.indexing import make_indexer, make_snapshots
from app.config.settings import Settings
from app.domain.errors import EmbeddingChanged, IndexingError, NoDocuments, TooManyDocumentsLost
from app.storage.disk.scratch import Scratch
from app.storage.disk.storage import DiskStorage
from tests.conftest import build, plan
from tests.fake_provider import FakeProvider, faults
from tests.support.settings import with_values
from tests.support.stored import assert_same_index, stored

MakeSettings = Callable[..., Settings]


def paragraph(number: int) -> str:
    return f"## Rule {number}\n\nThe rule of number {number} is that thing {number} is done.\n\n"


DOCUMENT = "# Rules\n\n" + "".join(paragraph(number) for number in range(6))


@pytest.fixture
def made(openai_settings: MakeSettings) -> Settings:
    """Two small documents, one of six chunks, and one that cannot be read; with an index of them."""
    settings = openai_settings(max_shrink=0.5)
    (settings.documents.dir / "rules.md").write_text(DOCUMENT)
    (settings.documents.dir / "broken.pdf").write_text("not a PDF")
    build(settings)
    return settings


@pytest.fixture
def sent(provider: FakeProvider) -> Callable[[], list[str]]:
    """The texts that were sent to be embedded since it was asked last."""

    def take() -> list[str]:
        texts = [text for request in provider.embeddings.requests for text in request.body["input"]]
        provider.embeddings.requests.clear()
        return texts

    return take


def assert_as_if_built_anew(settings: Settings, tmp_path: Path) -> None:
    anew = with_values(settings, index_dir=tmp_path / "anew")
    shutil.rmtree(anew.index.dir, ignore_errors=True)
    build(anew)
    assert_same_index(stored(settings.index.dir), stored(anew.index.dir))


def test_a_run_without_changes_does_nothing(made: Settings, sent: Callable[[], list[str]]) -> None:
    """No index is published, and the served one is the same to the byte."""
    before = (made.index.dir / "CURRENT").read_text()
    sent()
    report = build(made)
    assert (report.published, report.index, sent()) == (False, before.strip(), [])
    assert (made.index.dir / "CURRENT").read_text() == before
    assert "Nothing has changed" in report.as_text()


def test_only_new_texts_are_embedded(made: Settings, sent: Callable[[], list[str]], tmp_path: Path) -> None:
    """This holds within a changed document, too: five of its six chunks are known."""
    sent()
    (made.documents.dir / "rules.md").write_text(DOCUMENT.replace("thing 3 is", "thing 3 is never"))
    report = build(made)
    assert sent() == ["Rules > Rule 3\nThe rule of number 3 is that thing 3 is never done."]
    assert (report.changes.changed, report.embedded, report.published) == (["rules.md"], 1, True)
    assert_as_if_built_anew(made, tmp_path)


def test_a_removed_document_disappears(made: Settings, sent: Callable[[], list[str]], tmp_path: Path) -> None:
    sent()
    (made.documents.dir / "travel.md").unlink()
    report = build(made)
    assert (report.changes.removed, sent()) == (["travel.md"], [])
    assert "travel.md" not in {record.name for record in report.documents}
    assert_as_if_built_anew(made, tmp_path)


def test_a_renamed_document_is_not_embedded_again(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    """Citations have the new name, of which the chunks' ids are made."""
    sent()
    (made.documents.dir / "new").mkdir()
    (made.documents.dir / "rules.md").rename(made.documents.dir / "new" / "rules.md")
    report = build(made)
    assert (report.changes.renamed, sent()) == ([("rules.md", "new/rules.md")], [])
    assert_as_if_built_anew(made, tmp_path)


def test_documents_that_swap_contents_are_not_embedded_again(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    sent()
    leave, travel = made.documents.dir / "leave.md", made.documents.dir / "travel.md"
    leave.rename(made.documents.dir / "aside")
    travel.rename(leave)
    (made.documents.dir / "aside").rename(travel)
    report = build(made)
    assert (report.changes.changed, sent()) == (["leave.md", "travel.md"], [])
    assert_as_if_built_anew(made, tmp_path)


def test_a_copied_document_is_not_embedded_again(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    sent()
    shutil.copy(made.documents.dir / "rules.md", made.documents.dir / "copy.md")
    report = build(made)
    assert (report.changes.added, sent()) == (["copy.md"], [])
    assert_as_if_built_anew(made, tmp_path)


def test_new_modification_times_are_no_change(made: Settings, sent: Callable[[], list[str]]) -> None:
    """git does not keep them."""
    sent()
    for path in made.documents.dir.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, (1, 1))
    assert not build(made).published
    assert sent() == []


def test_another_chunk_size_embeds_only_new_texts(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    """All documents are read, and texts that do not change keep their vectors."""
    long = " ".join(f"Sentence {number} is here." for number in range(60))
    (made.documents.dir / "long.md").write_text(long)
    build(made)
    sent()
    smaller = with_values(made, chunk_size=500, chunk_overlap=0)
    report = build(smaller)
    new = sent()
    assert new
    assert all(text in long for text in new)
    assert report.published
    assert_as_if_built_anew(smaller, tmp_path)


def test_an_index_of_another_layout_is_rebuilt(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    """After an update, all documents are read, but nothing is embedded."""
    sent()
    storage = DiskStorage(
        make_snapshots(made), Scratch(), cache_path=tmp_path / "embeddings.sqlite", engine="the next layout"
    )
    indexer = make_indexer(made, storage)
    report = indexer.build(lambda _: None, Event())
    assert (report.published, report.embedded, sent()) == (True, 0, [])
    assert_as_if_built_anew(made, tmp_path)
    assert not indexer.build(lambda _: None, Event()).published


def test_a_full_run_reuses_nothing_of_the_index(made: Settings, sent: Callable[[], list[str]]) -> None:
    """The vectors that a provider was paid for come from the cache."""
    first = (made.index.dir / "CURRENT").read_text()
    report = build(made, full=True)
    assert report.published
    assert (made.index.dir / "CURRENT").read_text() != first


def test_a_repeated_text_is_embedded_once(
    openai_settings: MakeSettings, sent: Callable[[], list[str]]
) -> None:
    """Boilerplate in a hundred documents is paid for once."""
    settings = openai_settings(embedding_batch_size=3)
    for number in range(20):
        (settings.documents.dir / f"{number}.md").write_text("# Same\n\nThe same in all of them.\n")
    report = build(settings)
    assert sent().count("Same\nThe same in all of them.") == 1
    assert (report.embedded, report.chunks) == (3, 22)


def test_embeddings_survive_a_failed_run(
    openai_settings: MakeSettings, provider: FakeProvider, sent: Callable[[], list[str]]
) -> None:
    """The next run embeds the rest."""
    settings = openai_settings(embedding_batch_size=1, embedding_concurrency=1, embedding_retry_s=0)
    for number in range(8):
        (settings.documents.dir / f"{number}.md").write_text(f"Text of number {number}.")
    fail_after(provider, 5)
    with pytest.raises(IndexingError, match="embedding failed"):
        build(settings)
    assert not (settings.index.dir / "CURRENT").exists()
    first = set(sent()[:5])
    provider.embeddings.fault = None
    build(settings)
    assert first.isdisjoint(sent())


def test_another_model_behind_the_same_name_is_noticed(made: Settings, provider: FakeProvider) -> None:
    """An index with vectors of two models would find neither."""
    (made.documents.dir / "leave.md").write_text("Something else entirely.")
    provider.embeddings.fault = faults.distorted(halve)
    with pytest.raises(EmbeddingChanged, match="--full"):
        build(made)
    assert build(made, full=True).published


def test_a_plan_reports_and_writes_nothing(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    sent()
    (made.documents.dir / "rules.md").write_text(DOCUMENT.replace("thing 3 is", "thing 3 is never"))
    (made.documents.dir / "leave.md").rename(made.documents.dir / "absence.md")
    (made.documents.dir / "travel.md").unlink()
    (made.documents.dir / "added.md").write_text("Something new.")
    before = tree(made.index.dir)
    planned = plan(made)
    assert (tree(made.index.dir), sent()) == (before, [])
    done = build(made)
    assert planned.changes.added == done.changes.added == ["added.md"]
    assert planned.changes.changed == done.changes.changed == ["rules.md"]
    assert planned.changes.renamed == done.changes.renamed == [("leave.md", "absence.md")]
    assert planned.changes.removed == done.changes.removed == ["travel.md"]
    assert [record.name for record in planned.failed] == ["broken.pdf"]
    assert (planned.embedded, planned.chunks, planned.tokens) == (done.embedded, done.chunks, done.tokens)
    assert planned.embedded == 2
    assert (planned.published, planned.planned, done.planned) == (False, True, False)


def test_a_plan_needs_no_index_and_makes_none(openai_settings: MakeSettings) -> None:
    settings = openai_settings(embedding_price=1000)
    planned = plan(settings)
    assert not settings.index.dir.exists()
    assert planned.index is None
    assert planned.tokens
    assert planned.cost == pytest.approx(planned.tokens / 1000)
    assert json.loads(planned.as_json())["cost_usd"] == pytest.approx(planned.cost)


def test_many_lost_documents_stop_a_run(openai_settings: MakeSettings, sent: Callable[[], list[str]]) -> None:
    """A volume that is not mounted must not empty the index. Nothing is paid for before that is noticed."""
    settings = openai_settings()
    for number in range(8):
        (settings.documents.dir / f"{number}.md").write_text(f"Text of number {number}.")
    build(settings)
    sent()
    for number in range(3):
        (settings.documents.dir / f"{number}.md").unlink()
    (settings.documents.dir / "new.md").write_text("Something new.")
    with pytest.raises(TooManyDocumentsLost, match=r"3 of 10 documents.*0\.md.*--force"):
        build(settings)
    assert sent() == []
    assert build(settings, force=True).published


def test_documents_that_become_unreadable_count_as_lost(openai_settings: MakeSettings) -> None:
    settings = openai_settings()
    build(settings)
    (settings.documents.dir / "leave.md").write_text("")
    with pytest.raises(TooManyDocumentsLost, match="1 of 2"):
        build(settings)


def test_renamed_documents_do_not_count_as_lost(openai_settings: MakeSettings) -> None:
    settings = openai_settings()
    build(settings)
    for path in list(settings.documents.dir.iterdir()):
        path.rename(path.with_stem(f"{path.stem}-2"))
    assert build(settings).published


def test_a_run_without_a_readable_document_leaves_the_index(made: Settings) -> None:
    before = (made.index.dir / "CURRENT").read_text()
    for path in made.documents.dir.iterdir():
        path.write_text("")
    with pytest.raises(NoDocuments):
        build(made, force=True)
    assert (made.index.dir / "CURRENT").read_text() == before


def test_a_damaged_index_is_not_reused(made: Settings, tmp_path: Path) -> None:
    """Flipped bits must not get into the next index."""
    current = made.index.dir / "snapshots" / (made.index.dir / "CURRENT").read_text().strip()
    largest = max((path for path in current.rglob("*.dat")), key=lambda path: path.stat().st_size)
    stat = largest.stat()
    content = bytearray(largest.read_bytes())
    content[0] ^= 1
    largest.write_bytes(content)
    os.utime(largest, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (made.documents.dir / "leave.md").write_text("Something else entirely.")
    assert build(made).published
    assert_as_if_built_anew(made, tmp_path)


def test_a_rollback_serves_the_previous_index(made: Settings) -> None:
    first = (made.index.dir / "CURRENT").read_text().strip()
    (made.documents.dir / "leave.md").write_text("Something else entirely.")
    second = build(made).index
    assert make_indexer(made).roll_back() == first
    assert (made.index.dir / "CURRENT").read_text().strip() == first
    assert make_indexer(made).roll_back(second) == second
    with pytest.raises(IndexingError, match="there is no snapshot"):
        make_indexer(made).roll_back("20200101T000000Z-abcdef")


def test_a_run_after_a_rollback_starts_from_the_served_index(
    made: Settings, sent: Callable[[], list[str]], tmp_path: Path
) -> None:
    """It embeds nothing that either index has."""
    (made.documents.dir / "leave.md").write_text("Something else entirely.")
    build(made)
    make_indexer(made).roll_back()
    sent()
    report = build(made)
    assert (report.changes.changed, report.published, sent()) == (["leave.md"], True, [])
    assert_as_if_built_anew(made, tmp_path)


def fail_after(provider: FakeProvider, requests: int) -> None:
    provider.embeddings.fault = faults.later(faults.status(401), after=requests)


def halve(answer: dict[str, object]) -> None:
    for item in answer["data"]:  # type: ignore[attr-defined]
        item["embedding"] = item["embedding"][: len(item["embedding"]) // 2]


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
