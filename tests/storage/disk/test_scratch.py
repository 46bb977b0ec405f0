"""Loading from where nothing may be written: a copy that is verified, locked and removed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import SnapshotDamaged
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import flip, publish
from tests.support.serving import ROOT

# As another user than root, whom no mode keeps from writing. Python itself may be readable to root alone, so
# that everything is imported first.
AS_NOBODY = """
import os, sys, time
from pathlib import Path
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot_store import SnapshotStore
root, snapshot_id, scratch, then = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
if os.geteuid() == 0:
    os.setuid(65534)
snapshot = SnapshotStore(root, keep=1).open(snapshot_id)
with Scratch(scratch).loadable(snapshot) as path:
    print(path, flush=True)
    if then == "wait":
        time.sleep(600)
    assert (path / "engine" / "segment" / "data").read_text() == "content"
    assert (path / "documents.jsonl").read_bytes() == (snapshot.path / "documents.jsonl").read_bytes()
    if then == "exit":
        sys.exit()
assert not path.exists()
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are for one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "scratch").mkdir()
        (folder / "scratch").chmod(0o777)
        yield folder


@pytest.fixture
def read_only(shared: Path) -> Snapshot:
    """A snapshot whose modes allow nobody to write."""
    store = SnapshotStore(shared / "index", keep=1)
    snapshot = store.open(publish(store))
    for path in [snapshot.path, *snapshot.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return snapshot


def load(snapshot: Snapshot, then: str) -> subprocess.Popen[str]:
    folder = snapshot.path.parents[2]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            AS_NOBODY,
            str(snapshot.path.parents[1]),
            snapshot.manifest.id,
            str(folder / "scratch"),
            then,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_writable_snapshot_is_checked_but_not_copied(tmp_path: Path) -> None:
    """The scratch folder need not exist."""
    store = SnapshotStore(tmp_path / "index", keep=1)
    snapshot = store.open(publish(store))
    with Scratch(tmp_path / "no such folder").loadable(snapshot) as path:
        assert path == snapshot.path
    flip(snapshot.path / "engine" / "segment" / "data")
    with pytest.raises(SnapshotDamaged), Scratch(tmp_path).loadable(snapshot):
        pass


@pytest.mark.parametrize("then", ["close", "exit"])
def test_a_copy_is_removed_after_its_use(shared: Path, read_only: Snapshot, then: str) -> None:
    """It is removed even if the process ends without closing it."""
    loading = load(read_only, then)
    told, errors = loading.communicate(timeout=60)
    assert loading.returncode == 0, errors
    assert Path(told.strip()).parent == shared / "scratch"
    assert list((shared / "scratch").iterdir()) == []


def test_damage_is_found_while_copying(shared: Path, read_only: Snapshot) -> None:
    flip(read_only.path / "engine" / "segment" / "data")
    loading = load(read_only, "close")
    _, errors = loading.communicate(timeout=60)
    assert "SnapshotDamaged" in errors
    assert list((shared / "scratch").iterdir()) == []


def test_copies_of_killed_processes_are_removed(shared: Path, read_only: Snapshot) -> None:
    """Copies of running processes and other files stay."""
    killed, running = load(read_only, "wait"), load(read_only, "wait")
    try:
        assert killed.stdout is not None
        assert running.stdout is not None
        left_over, used = Path(killed.stdout.readline().strip()), Path(running.stdout.readline().strip())
        (shared / "scratch" / "of somebody else").mkdir()
        (shared / "scratch" / "rag-index-file").touch()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left_over.exists()
        Scratch(shared / "scratch").remove_left_over()
        remaining = {path.name for path in (shared / "scratch").iterdir()}
        assert remaining == {used.name, "of somebody else", "rag-index-file"}
    finally:
        for process in (killed, running):
            process.kill()
            process.communicate()


def test_a_failing_copy_names_the_setting(shared: Path, read_only: Snapshot) -> None:
    """The folder is missing here, which cleaning up ignores."""
    shutil.rmtree(shared / "scratch")
    _, errors = load(read_only, "close").communicate(timeout=60)
    assert "IndexingError" in errors
    assert "No such file or directory): set SCRATCH_DIR to a folder with room" in errors
    Scratch(shared / "scratch").remove_left_over()
