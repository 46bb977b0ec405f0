"""Snapshots: published whole or not at all, checked when opened, written by one at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.embeddings.fingerprint import Fingerprint
from app.errors import IndexLocked, SnapshotDamaged
from app.schemas import DocumentRecord, DocumentStatus
from app.settings import ChunkUnit
from app.snapshots import ChunkingInfo, Manifest, SnapshotStore, Staging
from tests.support.serving import ROOT, wait_for

RECORD = DocumentRecord(
    name="a \u2028 b.md",
    sha256="0",
    size=1,
    pages=None,
    chunks=1,
    status=DocumentStatus.INDEXED,
    problem=None,
)


def manifest(staging: Staging) -> Manifest:
    return Manifest(
        id=staging.id,
        built_at=staging.built_at,
        engine="test",
        embedding=Fingerprint(provider="local", model="test", dimensions=3),
        chunking=ChunkingInfo(size=1000, overlap=100, unit=ChunkUnit.CHARACTERS),
        documents=1,
        unread_documents=0,
        chunks=1,
    )


def publish(store: SnapshotStore, content: str = "content") -> str:
    with store.writer(), store.stage() as staging:
        (staging.path / "engine").mkdir()
        (staging.path / "engine" / "data").write_text(content)
        staging.write_documents([RECORD])
        store.publish(staging, manifest(staging))
    return staging.id


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path, keep=2)


def test_there_is_none_at_first(store: SnapshotStore) -> None:
    assert store.current_id() is None


def test_what_is_published_is_current_and_whole(store: SnapshotStore) -> None:
    published = publish(store)
    assert store.current_id() == published
    snapshot = store.open(published)
    assert snapshot.manifest.id == published
    assert set(snapshot.manifest.files) == {"engine/data", "documents.jsonl"}
    assert [DocumentRecord(**record) for record in json.loads(snapshot.documents_json())] == [RECORD]


def test_a_failure_while_writing_leaves_the_old_one(store: SnapshotStore, tmp_path: Path) -> None:
    published = publish(store)
    with pytest.raises(RuntimeError), store.writer(), store.stage() as staging:
        (staging.path / "half").write_text("half")
        raise RuntimeError("the build failed")
    assert store.current_id() == published
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [published]


def test_the_newest_are_kept(store: SnapshotStore, tmp_path: Path) -> None:
    """Also when several are made within a second."""
    ids = [publish(store, content) for content in "abcd"]
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ids[-2:]
    assert store.current_id() == ids[-1]


def test_a_clock_that_was_set_back_changes_no_order(store: SnapshotStore, tmp_path: Path) -> None:
    first = publish(store)
    future = "20991231T235958Z-abcdef"
    (tmp_path / "snapshots" / first).rename(tmp_path / "snapshots" / future)
    following = publish(store)
    assert following.startswith("20991231T235959Z-")


def test_a_snapshot_can_be_read_after_it_was_removed(store: SnapshotStore, tmp_path: Path) -> None:
    """Who serves it goes on to the swap."""
    snapshot = store.open(publish(store))
    shutil.rmtree(snapshot.path)
    assert json.loads(snapshot.documents_json())[0]["name"] == RECORD.name


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest", "bad manifest", "other layout"])
def test_damage_is_found_when_opening(store: SnapshotStore, tmp_path: Path, damage: str) -> None:
    published = publish(store)
    folder = tmp_path / "snapshots" / published
    if damage == "missing":
        (folder / "engine" / "data").unlink()
    elif damage == "truncated":
        (folder / "engine" / "data").write_text("cont")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "bad manifest":
        (folder / "manifest.json").write_text("{")
    else:
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(SnapshotDamaged, match="make reindex"):
        store.open(published)


@pytest.mark.parametrize("content", ["", "\xff", "../../etc", "20261120T101500Z-5f3a9c/..", "nonsense"])
def test_current_must_name_a_snapshot(store: SnapshotStore, tmp_path: Path, content: str) -> None:
    """It never leads out of the folder."""
    (tmp_path / "CURRENT").write_text(content)
    with pytest.raises(SnapshotDamaged):
        store.current_id()


HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from app.snapshots import SnapshotStore
store = SnapshotStore(Path(sys.argv[1]), keep=1)
with store.writer(), store.stage():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_there_is_one_writer_and_its_lock_dies_with_it(store: SnapshotStore, tmp_path: Path) -> None:
    """Even with SIGKILL; what it left over is cleaned by the next."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(IndexLocked, match=f"process {holder.pid}"), store.writer():
            pass
        assert len(list((tmp_path / "snapshots").glob(".staging-*"))) == 1
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    published = wait_for(lambda: publish(store), "the lock to be free")
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [published]
