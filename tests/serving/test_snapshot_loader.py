"""The choice of a snapshot when one is damaged, tested without the engine."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import FingerprintMismatch, SnapshotDamaged
from app.serving.served_index import ServedIndex
from app.serving.snapshot_loader import SnapshotLoader
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import flip, flip_unseen, folder_of, publish

DATA = Path("engine", "segment", "data")


@dataclass
class Engine:
    """A substitute that opens any snapshot that passes the check, and counts what it opens.

    Attributes:
        unfit: ids of snapshots of another model.
        failing: ids of snapshots on which the engine panics.
    """

    unfit: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def open(self, snapshot: Snapshot) -> ServedIndex:
        snapshot_id = snapshot.manifest.id
        self.opened.append(snapshot_id)
        if snapshot_id in self.unfit:
            raise FingerprintMismatch(f"{snapshot_id} does not fit: run make reindex")
        snapshot.check()

        def self_test() -> None:
            if snapshot_id in self.failing:
                raise RuntimeError("panicked")

        engine: Any = type("Engine", (), {"self_test": staticmethod(self_test)})()
        return ServedIndex(snapshot, engine, lambda: self.closed.append(snapshot_id))


class CountedStore(SnapshotStore):
    """A store that keeps the ids of the snapshots that were opened for reading."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, keep=3)
        self.opened: list[str] = []

    def open(self, snapshot_id: str) -> Snapshot:
        self.opened.append(snapshot_id)
        return super().open(snapshot_id)


@pytest.fixture
def store(tmp_path: Path) -> CountedStore:
    return CountedStore(tmp_path)


@pytest.fixture
def ids(store: SnapshotStore) -> list[str]:
    """Three intact snapshots, oldest first; the last is current."""
    return [publish(store, content) for content in "abc"]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def loader(store: SnapshotStore, engine: Engine) -> SnapshotLoader:
    return SnapshotLoader(store, engine.open, Scratch())


def served(loader: SnapshotLoader, before: ServedIndex | None = None) -> tuple[str, str | None]:
    choice = loader.choose(before)
    assert choice is not None
    return choice.index.id, choice.problem


def test_without_snapshots_there_is_no_choice(loader: SnapshotLoader) -> None:
    """The first index is to be built then."""
    assert loader.choose(None) is None


def test_the_current_snapshot_is_chosen_and_loaded_once(
    loader: SnapshotLoader, engine: Engine, ids: list[str]
) -> None:
    """The next choice returns the served index."""
    first = loader.choose(None)
    assert first is not None
    assert (first.index.id, first.problem) == (ids[2], None)
    assert loader.choose(first.index) == first
    assert engine.opened == [ids[2]]


def test_the_newest_intact_snapshot_replaces_a_damaged_one(
    loader: SnapshotLoader, ids: list[str], tmp_path: Path
) -> None:
    """The problem says what is wrong, what is served, and what to do."""
    (folder_of(tmp_path, ids[2]) / DATA).unlink()
    flip(folder_of(tmp_path, ids[1]) / DATA)
    chosen, problem = served(loader)
    assert chosen == ids[0]
    assert problem is not None
    assert problem.startswith(str(folder_of(tmp_path, ids[2]) / DATA))
    assert problem.endswith(f"is missing: run make reindex; until then {ids[0]} is served")


def test_after_a_rollback_the_newer_snapshot_is_the_last_resort(
    loader: SnapshotLoader, store: SnapshotStore, ids: list[str], tmp_path: Path
) -> None:
    """It was rolled back, so older snapshots come first."""
    store.point_to(ids[1])
    flip(folder_of(tmp_path, ids[1]) / DATA)
    assert served(loader)[0] == ids[0]
    flip(folder_of(tmp_path, ids[0]) / DATA)
    assert served(SnapshotLoader(store, Engine().open, Scratch()))[0] == ids[2]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda current: current.write_text(""), "does not name a snapshot"),
        (lambda current: current.write_text("nonsense"), "does not name a snapshot"),
        (lambda current: current.write_text("20991231T000000Z-abcdef\n"), "there is no snapshot"),
        (lambda current: (current.unlink(), current.mkdir()), "Is a directory"),
        (lambda current: (current.unlink(), current.symlink_to("..data/CURRENT")), "is missing"),
        (lambda current: current.unlink(), "has no file CURRENT"),
    ],
    ids=["empty", "nonsense", "dangling", "a directory", "a link to nowhere", "gone"],
)
def test_the_newest_snapshot_is_chosen_without_a_valid_current(
    loader: SnapshotLoader, ids: list[str], tmp_path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    """The problem says what is wrong with CURRENT."""
    damage(tmp_path / "CURRENT")
    chosen, problem = served(loader)
    assert chosen == ids[2]
    assert problem is not None
    assert expected in problem
    assert problem.endswith(f": run make reindex; until then {ids[2]} is served")


def test_the_served_snapshot_stays_if_it_is_the_newest_intact_one(
    loader: SnapshotLoader, engine: Engine, store: SnapshotStore, ids: list[str], tmp_path: Path
) -> None:
    """It is not loaded a second time."""
    first = loader.choose(None)
    assert first is not None
    following = publish(store, "d")
    (folder_of(tmp_path, following) / DATA).unlink()
    again = loader.choose(first.index)
    assert again is not None
    assert again.index is first.index
    assert "until then" in (again.problem or "")
    assert engine.opened == [ids[2]]


def test_a_damaged_snapshot_is_not_read_again_until_it_changes(
    loader: SnapshotLoader, store: CountedStore, ids: list[str], tmp_path: Path
) -> None:
    """After a change it is verified in full, and served if it is repaired."""
    content = (folder_of(tmp_path, ids[2]) / DATA).read_bytes()
    flip(folder_of(tmp_path, ids[2]) / DATA)
    fallback = loader.choose(None)
    for _ in range(3):
        fallback = loader.choose(fallback.index if fallback else None)
    assert fallback is not None
    assert (fallback.index.id, store.opened) == (ids[1], [ids[2], ids[1]])

    (folder_of(tmp_path, ids[2]) / DATA).write_bytes(content)
    assert served(loader, fallback.index) == (ids[2], None)


def test_a_partial_repair_is_not_enough(loader: SnapshotLoader, ids: list[str], tmp_path: Path) -> None:
    """Modification times prove nothing about a snapshot that was damaged before."""
    folder = folder_of(tmp_path, ids[2])
    content = (folder / DATA).read_bytes()
    flip_unseen(folder / "engine" / "sparse")
    (folder / DATA).unlink()
    assert served(loader)[0] == ids[1]
    (folder / DATA).write_bytes(content)
    chosen, problem = served(loader)
    assert chosen == ids[1]
    assert "sparse has another content" in (problem or "")


def test_a_scrub_finds_damage_that_loading_did_not(
    loader: SnapshotLoader, engine: Engine, ids: list[str], tmp_path: Path
) -> None:
    """The next choice is another snapshot, although no file has changed since."""
    flip_unseen(folder_of(tmp_path, ids[2]) / DATA)
    first = loader.choose(None)
    assert first is not None
    assert (first.index.id, first.problem) == (ids[2], None)
    loader.scrub(first.index, threading.Event())
    chosen, problem = served(loader, first.index)
    assert chosen == ids[1]
    assert "data has another content" in (problem or "")


def test_the_served_snapshot_stays_if_no_other_is_intact(
    loader: SnapshotLoader, store: SnapshotStore, tmp_path: Path
) -> None:
    """Its damage is reported."""
    only = publish(store)
    flip_unseen(folder_of(tmp_path, only) / DATA)
    first = loader.choose(None)
    assert first is not None
    loader.scrub(first.index, threading.Event())
    again = loader.choose(first.index)
    assert again is not None
    assert again.index is first.index
    assert again.problem is not None
    assert again.problem.endswith(f"run make reindex; no other index is intact, and {only} is still served")


def test_a_removed_snapshot_is_still_served(loader: SnapshotLoader, ids: list[str], tmp_path: Path) -> None:
    """The problem says that there is no index any more."""
    first = loader.choose(None)
    assert first is not None
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    chosen, problem = served(loader, first.index)
    assert (chosen, problem) == (
        ids[2],
        f"there is no index on the disk any more: run make reindex; {ids[2]} is still served",
    )


def test_without_an_intact_snapshot_the_damage_of_the_current_one_is_reported(
    loader: SnapshotLoader, ids: list[str], tmp_path: Path
) -> None:
    """An operator learns about the snapshot that should be served."""
    for snapshot_id in ids:
        (folder_of(tmp_path, snapshot_id) / DATA).unlink()
    with pytest.raises(SnapshotDamaged, match=f"{ids[2]}.*data is missing: run make reindex$"):
        loader.choose(None)


def test_a_snapshot_of_another_model_is_not_replaced_by_an_older_one(
    loader: SnapshotLoader, engine: Engine, ids: list[str]
) -> None:
    """The settings are wrong then, not the index."""
    engine.unfit = {ids[2]}
    with pytest.raises(FingerprintMismatch):
        loader.choose(None)


def test_a_replacement_must_fit_the_settings(
    loader: SnapshotLoader, engine: Engine, ids: list[str], tmp_path: Path
) -> None:
    """An older snapshot of another model is skipped."""
    flip(folder_of(tmp_path, ids[2]) / DATA)
    engine.unfit = {ids[1]}
    assert served(loader)[0] == ids[0]


def test_a_snapshot_that_the_engine_cannot_load_is_replaced_and_closed(
    loader: SnapshotLoader, engine: Engine, ids: list[str]
) -> None:
    """The problem says that its files are intact, and it is not retried at every poll."""
    engine.failing = {ids[2]}
    fallback = loader.choose(None)
    assert fallback is not None
    assert fallback.index.id == ids[1]
    assert "the engine cannot load" in (fallback.problem or "")
    assert engine.closed == [ids[2]]
    loader.choose(fallback.index)
    assert engine.opened == [ids[2], ids[1]]


def test_a_snapshot_that_the_engine_could_not_load_is_retried_after_a_pause(
    store: SnapshotStore, engine: Engine, ids: list[str]
) -> None:
    """The cause may have been a lack of memory."""
    loader = SnapshotLoader(store, engine.open, Scratch(), engine_retry_s=0)
    engine.failing = {ids[2]}
    fallback = loader.choose(None)
    assert fallback is not None
    engine.failing = set()
    assert served(loader, fallback.index) == (ids[2], None)


def test_damage_behind_a_failure_of_the_engine_is_named(
    loader: SnapshotLoader, engine: Engine, ids: list[str], tmp_path: Path
) -> None:
    """The problem is the damaged file, not the engine's panic."""
    engine.failing = {ids[2]}
    flip_unseen(folder_of(tmp_path, ids[2]) / DATA)
    _, problem = served(loader)
    assert "data has another content" in (problem or "")


def test_an_error_of_the_system_is_not_damage(store: SnapshotStore, ids: list[str]) -> None:
    """A server with too many open files does not fall back to an older index."""

    def fail(_: Snapshot) -> ServedIndex:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        SnapshotLoader(store, fail, Scratch()).choose(None)
