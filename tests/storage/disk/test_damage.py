"""Damage: what is found when, and what is trusted."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.errors import SnapshotDamaged
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import flip, flip_unseen, folder_of, publish
from tests.support.serving import ROOT

DATA = Path("engine", "segment", "data")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path, keep=3)


@pytest.fixture
def folder(store: SnapshotStore, tmp_path: Path) -> Path:
    """Of a snapshot that is whole, and has an older one beside it."""
    publish(store, "another")
    return folder_of(tmp_path, publish(store))


def older_than(folder: Path) -> Path:
    return min(folder.parent.iterdir())


def take_manifest_of_older(folder: Path) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        shutil.copy2(older_than(folder) / name, folder / name)


def take_engine_of_older(folder: Path) -> None:
    shutil.rmtree(folder / "engine")
    shutil.copytree(older_than(folder) / "engine", folder / "engine")


def take_documents_of_older(folder: Path) -> None:
    """Of the same size, so that only the content tells."""
    text = (older_than(folder) / "documents.jsonl").read_text().replace("b.md", "c.md")
    (folder / "documents.jsonl").write_text(text)


def set_layout(folder: Path, layout: int) -> None:
    text = (folder / "manifest.json").read_text()
    content = text.replace('"schema_version": 2', f'"schema_version": {layout}').encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def lead_out(folder: Path) -> None:
    (folder / DATA).unlink()
    (folder / DATA).symlink_to("nowhere")


OF_THE_SHAPE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no snapshot": (shutil.rmtree, "there is no snapshot"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "no checksum": (lambda folder: (folder / "manifest.sha256").unlink(), "manifest.sha256 is missing"),
    "manifest cut": (lambda folder: os.truncate(folder / "manifest.json", 40), "not as it was written"),
    "manifest empty": (lambda folder: os.truncate(folder / "manifest.json", 0), "not as it was written"),
    "manifest flipped": (lambda folder: flip(folder / "manifest.json"), "not as it was written"),
    "checksum flipped": (lambda folder: flip(folder / "manifest.sha256"), "not as it was written"),
    "manifest of another": (take_manifest_of_older, "has the manifest of"),
    "file missing": (lambda folder: (folder / DATA).unlink(), "data is missing"),
    "file cut": (lambda folder: os.truncate(folder / DATA, 4), "has 4 bytes, and had 7"),
    "file longer": (lambda folder: (folder / DATA).write_text("content."), "has 8 bytes, and had 7"),
    "link to nowhere": (lead_out, "data is missing"),
    "documents missing": (lambda folder: (folder / "documents.jsonl").unlink(), "documents.jsonl is missing"),
    "layout to come": (lambda folder: set_layout(folder, 99), "layout 99, and this version reads 2"),
}

OF_THE_CONTENT: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (lambda folder: flip(folder / DATA), "data has another content"),
    "flipped in the zeros": (lambda folder: flip(folder / "engine" / "sparse"), "sparse has another content"),
    "documents of another": (take_documents_of_older, "documents.jsonl has another content"),
    "engine of another": (take_engine_of_older, "has another content"),
}


@pytest.mark.parametrize("kind", OF_THE_SHAPE)
def test_a_wrong_structure_is_found_when_opening(store: SnapshotStore, folder: Path, kind: str) -> None:
    """The error names the file and the remedy."""
    damage, expected = OF_THE_SHAPE[kind]
    damage(folder)
    with pytest.raises(SnapshotDamaged, match=f"{expected}.*: run make reindex"):
        store.open(folder.name)


def test_the_previous_layout_is_not_reported_as_damage(store: SnapshotStore, folder: Path) -> None:
    """It had no checksum."""
    set_layout(folder, 1)
    (folder / "manifest.sha256").unlink()
    with pytest.raises(SnapshotDamaged, match="layout 1, and this version reads 2"):
        store.open(folder.name)


@pytest.mark.parametrize("kind", OF_THE_CONTENT)
def test_changed_content_is_found_by_its_modification_time(
    store: SnapshotStore, folder: Path, kind: str
) -> None:
    """It is found before it is loaded, although every size is right."""
    damage, expected = OF_THE_CONTENT[kind]
    damage(folder)
    snapshot = store.open(folder.name)
    with pytest.raises(SnapshotDamaged, match=f"{expected}.*: run make reindex"):
        snapshot.check()


def test_damage_by_a_failing_disk_is_found_by_reading_everything(store: SnapshotStore, folder: Path) -> None:
    """Size and time are unchanged: `check` trusts them, `verify` and the scrub do not."""
    flip_unseen(folder / DATA)
    snapshot = store.open(folder.name)
    snapshot.check()
    with pytest.raises(SnapshotDamaged, match="data has another content"):
        snapshot.verify()
    with pytest.raises(SnapshotDamaged, match="data has another content"):
        snapshot.scrub(threading.Event())


def test_a_scrub_can_be_stopped(store: SnapshotStore, folder: Path) -> None:
    """It ends before it reaches the damage."""
    flip_unseen(folder / DATA)
    stopped = threading.Event()
    stopped.set()
    store.open(folder.name).scrub(stopped)


def test_a_restored_copy_is_verified_once(store: SnapshotStore, folder: Path) -> None:
    """Times differ but the content is the same, so it is intact and trusted from then on."""
    shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)
    snapshot = store.open(folder.name)
    assert [name for name in snapshot.manifest.files if has_its_time(snapshot, name)] == []
    snapshot.check()
    assert all(has_its_time(snapshot, name) for name in snapshot.manifest.files)


def test_modification_times_are_restored_after_the_engine(store: SnapshotStore, folder: Path) -> None:
    """A file that had another time before keeps it, because somebody else has written to it."""
    snapshot = store.open(folder.name)
    os.utime(folder / "engine" / "empty", ns=(5, 5))
    with snapshot.times_kept():
        for name in snapshot.manifest.files:
            os.utime(folder / name)
    assert all(has_its_time(snapshot, name) for name in snapshot.manifest.files if name != "engine/empty")
    assert not has_its_time(snapshot, "engine/empty")


def test_a_copy_is_verified_while_it_is_made(store: SnapshotStore, folder: Path, tmp_path: Path) -> None:
    snapshot = store.open(folder.name)
    snapshot.copy_files(snapshot.store_files, tmp_path / "copy")
    for name in snapshot.store_files:
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / "copy" / "documents.jsonl").exists()

    flip_unseen(folder / DATA)
    with pytest.raises(SnapshotDamaged, match="data has another content"):
        snapshot.copy_files(snapshot.store_files, tmp_path / "another copy")


def test_a_copy_takes_no_more_disk_space(store: SnapshotStore, folder: Path, tmp_path: Path) -> None:
    """The engine's files are sparse."""
    snapshot = store.open(folder.name)
    snapshot.copy_files(["engine/sparse"], tmp_path)
    copied = (tmp_path / "engine" / "sparse").stat()
    assert copied.st_size == 5_000_000
    assert copied.st_blocks * 512 < 1_000_000


def test_stored_zeros_are_equal_to_holes(store: SnapshotStore, folder: Path) -> None:
    """A copy made by other tools may store them."""
    content = (folder / "engine" / "sparse").read_bytes()
    (folder / "engine" / "sparse").write_bytes(content)
    snapshot = store.open(folder.name)
    snapshot.check()
    snapshot.verify()


# The first time, what it needs is imported.
OPEN_TWICE = """
import resource, sys
from pathlib import Path
from app.storage.disk.snapshot_store import SnapshotStore

store = SnapshotStore(Path(sys.argv[1]), keep=3)
store.open(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    store.open(sys.argv[2])
except OSError as error:
    print(error.strerror)
"""


def test_errors_other_than_damage_are_raised(folder: Path, tmp_path: Path) -> None:
    """No snapshot is abandoned for them. The test has its own process, whose open files it exhausts."""
    command = [sys.executable, "-c", OPEN_TWICE, str(tmp_path), folder.name]
    found = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "Too many open files\n"), done.stderr


def resident(path: Path) -> bool:
    """Is all of a small file in memory?"""
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * 1)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(1), pages) == 0
        return bool(pages[0] & 1)


def test_a_warm_snapshot_is_in_memory(store: SnapshotStore, folder: Path) -> None:
    """Its engine then does not wait for the disk."""
    with (folder / DATA).open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(folder / DATA):
        pytest.skip("needs a file system that is not in memory itself")
    store.open(folder.name).warm()
    assert resident(folder / DATA)


def test_a_signature_changes_with_any_change(store: SnapshotStore, folder: Path) -> None:
    """It does so even if size and time are restored."""
    first = store.signature(folder.name)
    assert store.signature(folder.name) == first
    flip_unseen(folder / DATA)
    second = store.signature(folder.name)
    (folder / DATA).unlink()
    assert len({first, second, store.signature(folder.name), store.signature("no such")}) == 4


@pytest.mark.parametrize("content", [b"", b"\xff", b"../../etc", b"20261120T101500Z-5f3a9c/..", b"nonsense"])
def test_current_must_name_a_snapshot(store: SnapshotStore, tmp_path: Path, content: bytes) -> None:
    """A path that leads out of the folder is refused."""
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(SnapshotDamaged, match="does not name a snapshot: run make reindex"):
        store.current_id()


def test_current_must_be_a_readable_file(store: SnapshotStore, tmp_path: Path) -> None:
    (tmp_path / "CURRENT").mkdir()
    with pytest.raises(SnapshotDamaged, match=r"Is a directory.*: run make reindex"):
        store.current_id()
    (tmp_path / "CURRENT").rmdir()
    (tmp_path / "CURRENT").symlink_to("..data/CURRENT")
    with pytest.raises(SnapshotDamaged, match="CURRENT is missing: run make reindex"):
        store.current_id()


def has_its_time(snapshot: Snapshot, name: str) -> bool:
    return (snapshot.path / name).stat().st_mtime_ns == snapshot.manifest.files[name].mtime_ns
