"""A disk that is full, or gets full, while an index is made: told in a line, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.mounts import SmallDisk, small_disk
from tests.support.serving import ROOT, run_reindex, server_process
from tests.support.stored import Stored, stored

pytestmark = pytest.mark.slow

MB = 1_000_000
# Of one chunk each, with more text than its vector takes.
LARGE_DOCUMENTS = 100

MAKE_A_SHARD = """
import sys
from pathlib import Path
from app.storage.disk.shard import ChunkShard

full = Path(sys.argv[1], "full")
full.write_bytes(bytes(4096))
try:
    ChunkShard.create(full.parent, dimensions=8, average_length=1.0)
except OSError as error:
    print(error)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With one small document; the index is below `mounted`."""
    for name in ("documents", "mounted"):
        (tmp_path / name).mkdir()
    (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    return {
        "DOCUMENTS_DIR": str(tmp_path / "documents"),
        "INDEX_DIR": str(tmp_path / "mounted" / "index"),
        "CHUNK_SIZE": "20000",
        "PARSE_WORKERS": "1",
    }


def write_large_documents(folder: Path) -> None:
    for number in range(LARGE_DOCUMENTS):
        (folder / f"{number}.md").write_text(f"Document {number}. " + "Trains are booked early. " * 780)


def assert_told(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Failed: [Errno 28] No space left on device"), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def snapshots_in(disk: SmallDisk) -> list[str]:
    """And whatever else lies among them."""
    return sorted(path.name for path in (disk.content / "index" / "snapshots").iterdir())


def stored_on(disk: SmallDisk, copy: Path) -> Stored:
    subprocess.run(["cp", "-a", "--sparse=always", disk.content / "index", copy], check=True)
    return stored(copy)


@pytest.mark.parametrize(
    ("free", "large"),
    [(0, False), (4096, False), (16 * 1024, False), (80 * MB, False), (105 * MB, True), (102 * MB, False)],
    ids=["nothing", "a lock", "a few files", "not quite enough", "while adding", "before saving"],
)
def test_a_first_index_that_does_not_fit_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, free: int, large: bool
) -> None:
    """The engine's writes to mapped memory without disk space do not kill the process."""
    if large:
        write_large_documents(tmp_path / "documents")
    with small_disk(tmp_path / "mounted", "10m") as disk:
        # Of no size at all, it would have no limit.
        (disk.content / "other").write_text("other")
        disk.leave_free(free)
        assert_told(run_reindex(environment, within=disk.within))
        index = disk.content / "index"
        left = {path.name for path in disk.content.rglob("*")}
        assert left <= {"other", "index", "snapshots", "writer.lock", "writer.guard"}
        assert not (index / "CURRENT").exists()


def test_the_previous_index_is_served_until_there_is_space(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The disk may be full at once, while copying or while adding."""
    with small_disk(tmp_path / "mounted", "200m") as disk:
        assert run_reindex(environment, within=disk.within).returncode == 0
        before = (disk.content / "index" / "CURRENT").read_text().strip()
        write_large_documents(tmp_path / "documents")
        for free in (0, 100 * MB, 191 * MB):
            disk.leave_free(free)
            assert_told(run_reindex(environment, within=disk.within))
            assert (disk.content / "index" / "CURRENT").read_text().strip() == before
            assert snapshots_in(disk) == [before]
        assert len(stored_on(disk, tmp_path / "before").chunks) == 1

        disk.leave_free(400 * MB)
        done = run_reindex(environment, within=disk.within)
        assert done.returncode == 0, done.stderr
        assert f"{LARGE_DOCUMENTS} texts embedded" in done.stdout
        assert len(stored_on(disk, tmp_path / "after").chunks) == LARGE_DOCUMENTS + 1


def test_the_engines_error_of_a_full_disk_is_recognised(tmp_path: Path) -> None:
    """It has no class of its own."""
    with small_disk(tmp_path, "4k") as disk:
        command = [*disk.within, sys.executable, "-c", MAKE_A_SHARD, str(tmp_path)]
        found = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"[Errno {errno.ENOSPC}] No space left on device\n"


def test_a_server_starts_on_a_full_disk(environment: dict[str, str], tmp_path: Path) -> None:
    """It loads a copy on another disk, since the engine writes while it loads."""
    (tmp_path / "scratch").mkdir()
    environment["SCRATCH_DIR"] = str(tmp_path / "scratch")
    with small_disk(tmp_path / "mounted", "200m") as disk:
        assert run_reindex(environment, within=disk.within).returncode == 0
        disk.leave_free(0)
        with server_process(environment, tmp_path / "log", disk.within) as server:
            assert "detail" not in server.wait_until_ready()
            assert httpx.post(f"{server.url}/query", json={"query": "leave"}, timeout=60).status_code == 200


@pytest.mark.parametrize("free", [4096, 28 * 1024], ids=["its making", "its growing"])
def test_a_disk_without_space_for_the_embedding_cache_is_reported(
    environment: dict[str, str], tmp_path: Path, provider_url: str, free: int
) -> None:
    environment["OPENAI_BASE_URL"] = f"{provider_url}/v1"
    with small_disk(tmp_path / "mounted", "10m") as disk:
        disk.leave_free(free)
        done = run_reindex(environment, within=disk.within)
        assert_told(done)
        assert "embeddings.sqlite" in done.stderr
        assert snapshots_in(disk) == []
