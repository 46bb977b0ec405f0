"""One writer at a time, and the others are told who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.errors import IndexLocked
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import publish
from tests.support.serving import ROOT, wait_for

HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from app.storage.disk.snapshot_store import SnapshotStore
store = SnapshotStore(Path(sys.argv[1]), keep=1)
with store.writer(), store.stage():
    print("locked", flush=True)
    time.sleep(600)
"""

# Forked, so that all of them try within a millisecond. Each round's writer is killed: its name stays behind.
CONTEND = """
import os, signal, sys
from pathlib import Path
from app.domain.errors import IndexLocked
from app.storage.disk.snapshot_store import SnapshotStore

store = SnapshotStore(Path(sys.argv[1]), keep=1)
ROUNDS, WRITERS = 10, 8

def contend(go, told):
    os.read(go, 1)
    try:
        with store.writer():
            os.write(told, f"{os.getpid()} writes\\n".encode())
            signal.pause()
    except IndexLocked as locked:
        os.write(told, f"{os.getpid()} says {locked}\\n".encode())
    os._exit(0)

for _ in range(ROUNDS):
    go, start = os.pipe()
    heard, told = os.pipe()
    children = []
    for _ in range(WRITERS):
        if not (child := os.fork()):
            contend(go, told)
        children.append(child)
    os.write(start, b"." * WRITERS)
    with os.fdopen(heard) as lines:
        said = [lines.readline() for _ in children]
    writers = [line.split()[0] for line in said if line.endswith("writes\\n")]
    assert len(writers) == 1, said
    refused = [line for line in said if f" by process {writers[0]} on " in line]
    assert len(refused) == WRITERS - 1, (writers, said)
    for child in children:
        if str(child) == writers[0]:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for end in (go, start, told):
        os.close(end)
"""


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path, keep=2)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_the_lock_of_a_killed_writer_is_released(store: SnapshotStore, tmp_path: Path) -> None:
    """The next writer also removes the files that it left behind."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(IndexLocked, match=f"process {holder.pid} on"), store.writer():
            pass
        assert len(list((tmp_path / "snapshots").glob(".staging-*"))) == 1
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    published = wait_for(lambda: publish(store), "the lock to be free")
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [published]


def test_seven_of_eight_concurrent_writers_name_the_eighth(tmp_path: Path) -> None:
    """They never name a previous writer, and never none."""
    done = subprocess.run(
        [sys.executable, "-c", CONTEND, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_one_process_cannot_write_twice(store: SnapshotStore) -> None:
    """A server builds in a thread."""
    with store.writer(), pytest.raises(IndexLocked, match=f"process {os.getpid()} on"), store.writer():
        pass
    with store.writer():
        pass
