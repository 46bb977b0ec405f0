"""Damaged indexes with the real engine: found, replaced by an older one, and reported by /health."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_engine_maker, make_index_manager, make_index_opener
from app.config.settings import Settings
from app.domain.index import Health
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot_store import SnapshotStore
from tests.conftest import build
from tests.support.made_snapshots import flip, flip_unseen, folder_of
from tests.support.serving import wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How many weeks does parental leave last?"}


class TwoIndexes(NamedTuple):
    """An index directory with two snapshots, of which the newer one is current."""

    settings: Settings
    older: Path
    newer: Path

    @property
    def ids(self) -> tuple[str, str]:
        return self.older.name, self.newer.name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build `documents` and `index`, with snapshots that say 16 and 20 weeks."""
    folder = tmp_path_factory.mktemp("two_indexes")
    (folder / "documents").mkdir()
    settings = Settings(documents_dir=folder / "documents", index_dir=folder / "index", parse_workers=1)
    for weeks in (16, 20):
        (folder / "documents" / "leave.md").write_text(f"Parental leave lasts {weeks} weeks.")
        build(settings)
    return folder


@pytest.fixture
def indexes(built: Path, tmp_path: Path) -> TwoIndexes:
    """A copy for one test, with times and holes."""
    subprocess.run(["cp", "-a", built / "index", tmp_path / "index"], check=True)
    settings = Settings(
        documents_dir=built / "documents", index_dir=tmp_path / "index", index_poll_s=0.05, parse_workers=1
    )
    older, newer = SnapshotStore(tmp_path / "index", keep=3).ids()
    return TwoIndexes(settings, folder_of(tmp_path / "index", older), folder_of(tmp_path / "index", newer))


def start(settings: Settings) -> Health:
    """What a server says when it has started."""

    async def started() -> Health:
        provider = make_provider(settings)
        manager = make_index_manager(settings, provider)
        await manager.start()
        health = manager.health()
        manager.stop()
        await manager.close()
        await provider.close()
        return health

    return asyncio.run(started())


def largest_engine_file(folder: Path) -> Path:
    files = [path for path in (folder / "engine").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_blocks)


def take_engine_of(older: Path, newer: Path) -> None:
    shutil.rmtree(newer / "engine")
    subprocess.run(["cp", "-a", older / "engine", newer / "engine"], check=True)


def fill_unseen(folder: Path) -> None:
    """Overwrite the engine's files, so that the engine panics, but keep their times."""
    for path in (folder / "engine").rglob("*"):
        if path.is_file():
            flip_all_unseen(path)


def flip_all_unseen(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"\xff" * min(status.st_size, 100_000))
    os.truncate(path, status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE: dict[str, tuple[Callable[[TwoIndexes], object], str]] = {
    "missing": (lambda two: (two.newer / "store.json").unlink(), "store.json is missing"),
    "truncated": (lambda two: (two.newer / "terms.npy").write_bytes(b"\x93"), "terms.npy has 1 bytes"),
    "flipped": (lambda two: flip(largest_engine_file(two.newer)), "has another content"),
    "engine of the older": (lambda two: take_engine_of(two.older, two.newer), "engine/"),
    "engine panics": (lambda two: fill_unseen(two.newer), "has another content"),
    "manifest flipped": (lambda two: flip(two.newer / "manifest.json"), "not as it was written"),
    "manifest missing": (lambda two: (two.newer / "manifest.json").unlink(), "manifest.json is missing"),
    "documents of the older": (
        lambda two: shutil.copy2(two.older / "documents.jsonl", two.newer / "documents.jsonl"),
        "documents.jsonl has another content",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_previous_index_is_served_instead_of_a_damaged_one(indexes: TwoIndexes, kind: str) -> None:
    """/health says what is damaged, what is served, and what to do."""
    damage, expected = DAMAGE[kind]
    damage(indexes)
    health = start(indexes.settings)
    assert health.index_ready
    assert health.index is not None
    assert health.index.id == indexes.older.name
    assert health.detail is not None
    assert health.detail.startswith(str(indexes.newer))
    assert expected in health.detail
    assert health.detail.endswith(f": run make reindex; until then {indexes.older.name} is served")


def test_health_reports_damage_and_repair(indexes: TwoIndexes, serve: Serve) -> None:
    """A repaired index is served without a restart, such as after a late mount."""
    terms = indexes.newer / "terms.npy"
    terms.rename(indexes.settings.index.dir / "aside")
    client = serve(indexes.settings)
    health = client.get("/health").json()
    assert (health["status"], health["index_ready"]) == ("ok", True)
    assert health["index"]["id"] == indexes.older.name
    assert f"{terms} is missing: run make reindex" in health["detail"]
    assert "16 weeks" in client.post("/query", json=QUESTION).json()["answer"]

    (indexes.settings.index.dir / "aside").rename(terms)
    wait_for(lambda: client.get("/health").json()["index"]["id"] == indexes.newer.name, "the repaired index")
    assert "detail" not in client.get("/health").json()
    assert "20 weeks" in client.post("/query", json=QUESTION).json()["answer"]


def test_a_failing_disk_is_noticed_while_serving(indexes: TwoIndexes, serve: Serve) -> None:
    """Only reading the files shows the damage, so it is served until that is done."""
    flip_unseen(indexes.newer / "documents.jsonl")
    client = serve(indexes.settings)
    wait_for(lambda: client.get("/health").json()["index"]["id"] == indexes.older.name, "the index before")
    assert "documents.jsonl has another content" in client.get("/health").json()["detail"]
    assert "16 weeks" in client.post("/query", json=QUESTION).json()["answer"]


def test_a_reindex_repairs_a_damaged_index(indexes: TwoIndexes, serve: Serve) -> None:
    """The next index is served without a restart."""
    (indexes.newer / "store.json").unlink()
    client = serve(indexes.settings)
    assert "detail" in client.get("/health").json()
    (indexes.settings.index.dir / "CURRENT").unlink()
    (indexes.settings.index.dir / "CURRENT").mkdir()
    build(indexes.settings)
    wait_for(lambda: "detail" not in client.get("/health").json(), "the new index")
    assert client.get("/health").json()["index"]["id"] not in indexes.ids


def test_the_service_is_not_ready_if_no_index_is_intact(indexes: TwoIndexes, serve: Serve) -> None:
    """It builds nothing by itself, which could cost money; a reindex repairs it."""
    for folder in (indexes.older, indexes.newer):
        (folder / "terms.npy").unlink()
    client = serve(indexes.settings, ready=False)
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "failed")
    assert f"{indexes.newer / 'terms.npy'} is missing: run make reindex" in health.json()["detail"]

    build(indexes.settings)
    wait_for(lambda: client.get("/health").status_code == 200, "the new index to be served")


def test_loading_does_not_change_an_index(indexes: TwoIndexes) -> None:
    """Its files keep their sizes, times and contents after it was opened, queried and closed."""
    before = state_of(indexes.newer)
    snapshot = SnapshotStore(indexes.settings.index.dir, keep=3).open(indexes.newer.name)
    maker = make_engine_maker(indexes.settings, make_provider(indexes.settings))
    opened = make_index_opener(maker, Scratch())(snapshot)
    opened.engine.self_test()
    assert state_of(indexes.newer) == before
    opened.close()
    assert state_of(indexes.newer) == before
    snapshot.verify()


def state_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
