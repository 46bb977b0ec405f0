"""Snapshots: published whole or not at all, listed, kept, and gone back to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.domain.errors import IndexingError, SnapshotDamaged, SnapshotNotFound
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import RECORD, fill, flip_unseen, folder_of, manifest_of, publish

FILES = {"engine/segment/data", "engine/sparse", "engine/empty", "documents.jsonl"}


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path, keep=3)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_store_is_empty(store: SnapshotStore) -> None:
    assert store.current_id() is None
    assert store.summaries() == []
    assert store.candidates() == []


def test_a_published_snapshot_is_current_and_intact(store: SnapshotStore) -> None:
    published = publish(store)
    assert store.current_id() == published
    snapshot = store.open(published)
    assert snapshot.manifest.id == published
    assert snapshot.manifest.reader == "test 1"
    assert set(snapshot.manifest.files) == FILES
    assert set(snapshot.store_files) == FILES - {"documents.jsonl"}
    assert list(snapshot.documents()) == [RECORD]


def test_a_sealed_snapshot_can_be_read_before_it_is_published(store: SnapshotStore) -> None:
    """It is not served yet."""
    with store.writer(), store.stage() as staging:
        fill(staging)
        sealed = store.seal(staging, manifest_of(staging))
        sealed.verify()
        assert (sealed.path / "engine" / "segment" / "data").read_text() == "content"
        assert store.current_id() is None
        assert store.candidates() == []
        store.publish(staging)
    assert store.current_id() == staging.id


def test_a_failed_write_leaves_the_old_snapshot(store: SnapshotStore, tmp_path: Path) -> None:
    published = publish(store)
    with pytest.raises(RuntimeError), store.writer(), store.stage() as staging:
        (staging.path / "half").write_text("half")
        raise RuntimeError("the build failed")
    assert store.current_id() == published
    assert names_in(tmp_path / "snapshots") == [published]


def test_only_the_files_of_a_killed_writer_are_removed(store: SnapshotStore, tmp_path: Path) -> None:
    published = publish(store)
    (tmp_path / "snapshots" / ".staging-20261120T101500Z-5f3a9c" / "engine").mkdir(parents=True)
    (tmp_path / "snapshots" / ".removing-20261120T101500Z-5f3a9c").mkdir()
    (tmp_path / "CURRENT.next").write_text("half")
    (tmp_path / "notes.txt").write_text("an operator's")
    (tmp_path / "snapshots" / "backup").mkdir()
    with store.writer():
        pass
    assert names_in(tmp_path / "snapshots") == sorted(["backup", published])
    assert names_in(tmp_path) == ["CURRENT", "notes.txt", "snapshots", "writer.guard", "writer.lock"]


def test_the_newest_snapshots_are_kept(tmp_path: Path) -> None:
    """Their order is known even if several are made within a second."""
    store = SnapshotStore(tmp_path, keep=2)
    ids = [publish(store, content) for content in "abcd"]
    assert names_in(tmp_path / "snapshots") == ids[-2:]
    assert store.current_id() == ids[-1]


def test_a_single_snapshot_can_be_kept(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, keep=1)
    ids = [publish(store, content) for content in "ab"]
    assert names_in(tmp_path / "snapshots") == ids[-1:]


def test_a_clock_that_was_set_back_does_not_change_the_order(store: SnapshotStore, tmp_path: Path) -> None:
    first = publish(store)
    folder_of(tmp_path, first).rename(folder_of(tmp_path, "20991231T235958Z-abcdef"))
    following = publish(store)
    assert following.startswith("20991231T235959Z-")


def test_a_snapshot_can_be_read_after_it_was_removed(store: SnapshotStore) -> None:
    """A server uses it until its next swap."""
    snapshot = store.open(publish(store))
    shutil.rmtree(snapshot.path)
    assert list(snapshot.documents()) == [RECORD]


def test_snapshots_are_listed_newest_first(store: SnapshotStore, tmp_path: Path) -> None:
    """The list has their content, or their problem."""
    older, newer = publish(store), publish(store)
    store.point_to(older)
    (folder_of(tmp_path, newer) / "engine" / "segment" / "data").write_text("CONTENT")
    listed = store.summaries()
    assert [(each.id, each.current) for each in listed] == [(newer, False), (older, True)]
    assert [(each.documents, each.chunks, str(each.embedding)) for each in listed] == [
        (1, 1, "local/test (3 dimensions)")
    ] * 2
    assert listed[1].problem is None
    assert "engine/segment/data has another content" in (listed[0].problem or "")
    # The 5 MB of one file are a hole for the most part.
    assert 0 < (listed[1].bytes or 0) < 1_000_000


def test_newer_snapshots_are_the_last_candidates_after_a_rollback(store: SnapshotStore) -> None:
    """The current one comes first, then the older ones."""
    oldest, middle, newest = (publish(store, content) for content in "abc")
    assert store.candidates() == [newest, middle, oldest]
    store.point_to(middle)
    assert store.candidates() == [middle, oldest, newest]


@pytest.mark.parametrize("content", [None, "nonsense", "20200101T000000Z-abcdef"])
def test_the_newest_is_the_first_candidate_without_a_current_one(
    store: SnapshotStore, tmp_path: Path, content: str | None
) -> None:
    """CURRENT may name one that is older than all others."""
    ids = [publish(store, content) for content in "ab"]
    (tmp_path / "CURRENT").unlink()
    if content is not None:
        (tmp_path / "CURRENT").write_text(content)
    assert [each for each in store.candidates() if each in ids] == ids[::-1]


def test_damaged_candidates_are_skipped(store: SnapshotStore, tmp_path: Path) -> None:
    oldest, middle, newest = (publish(store, content) for content in "abc")
    (folder_of(tmp_path, newest) / "engine" / "segment" / "data").unlink()
    (folder_of(tmp_path, middle) / "engine" / "segment" / "data").write_text("x")
    assert [snapshot.manifest.id for snapshot in store.intact()] == [oldest]


def test_a_rollback_takes_the_previous_snapshot(store: SnapshotStore) -> None:
    """This can be repeated, and the newest is reached by its id."""
    oldest, middle, newest = (publish(store, content) for content in "abc")
    with store.writer():
        for expected in (middle, oldest):
            found = store.find_for_rollback().manifest.id
            store.point_to(found)
            assert (found, store.current_id()) == (expected, expected)
        with pytest.raises(SnapshotNotFound, match=f"no snapshot older.*{newest}"):
            store.find_for_rollback()
        store.point_to(store.find_for_rollback(newest).manifest.id)
    assert store.current_id() == newest


def test_a_rollback_to_an_unknown_id_names_the_known_ones(store: SnapshotStore) -> None:
    published = publish(store)
    for wrong in ("20200101T000000Z-abcdef", "../..", ""):
        with pytest.raises(SnapshotNotFound, match=published):
            store.find_for_rollback(wrong)


def test_a_rollback_to_a_damaged_snapshot_is_refused(store: SnapshotStore, tmp_path: Path) -> None:
    """Every byte is read, whatever the modification times are."""
    older = publish(store)
    newer = publish(store)
    flip_unseen(folder_of(tmp_path, older) / "engine" / "segment" / "data")
    with pytest.raises(SnapshotDamaged, match="another content"):
        store.find_for_rollback()
    assert store.current_id() == newer


def test_an_empty_folder_in_place_of_current_is_replaced(store: SnapshotStore, tmp_path: Path) -> None:
    """A folder with files is not, and is reported."""
    published = publish(store)
    (tmp_path / "CURRENT").unlink()
    (tmp_path / "CURRENT").mkdir()
    store.point_to(published)
    assert store.current_id() == published

    (tmp_path / "CURRENT").unlink()
    (tmp_path / "CURRENT" / "other").mkdir(parents=True)
    with pytest.raises(IndexingError, match="has to be a file"):
        store.point_to(published)


def test_check_writable_needs_no_index(tmp_path: Path) -> None:
    """The folder need not exist, either."""
    SnapshotStore(tmp_path / "not" / "there", keep=1).check_writable()
