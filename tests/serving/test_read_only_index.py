"""An index on a read-only volume: loaded from a copy, and followed like any other."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build
from tests.support.mounts import read_only, small
from tests.support.serving import ServerProcess, server_process, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How many weeks does parental leave last?"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a server with an index below `mounted`, and its copies in `scratch`."""
    for name in ("documents", "mounted", "scratch"):
        (tmp_path / name).mkdir()
    return {
        "DOCUMENTS_DIR": str(tmp_path / "documents"),
        "INDEX_DIR": str(tmp_path / "mounted" / "index"),
        "SCRATCH_DIR": str(tmp_path / "scratch"),
        "INDEX_POLL_S": "0.05",
    }


def publish(folder: Path, index_dir: Path, weeks: int) -> str:
    (folder / "documents" / "leave.md").write_text(f"Parental leave lasts {weeks} weeks.")
    build(Settings(documents_dir=folder / "documents", index_dir=index_dir, parse_workers=1))
    return (index_dir / "CURRENT").read_text().strip()


def answer(server: ServerProcess) -> tuple[str, str]:
    body = httpx.post(f"{server.url}/query", json=QUESTION, timeout=60).json()
    return body["index"], body["answer"]


def state_of(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in folder.rglob("*")}


def test_a_read_only_index_is_served_from_a_copy(environment: dict[str, str], tmp_path: Path) -> None:
    """There is one copy, of the served index; the index itself is unchanged."""
    index_dir, scratch = tmp_path / "mounted" / "index", tmp_path / "scratch"
    first = publish(tmp_path, index_dir, 16)
    before = state_of(index_dir)
    with server_process(environment, tmp_path / "log", read_only(index_dir)) as server:
        assert "detail" not in server.wait_until_ready()
        assert answer(server) == (first, "Parental leave lasts 16 weeks. [1]")
        (copy,) = scratch.iterdir()
        assert state_of(index_dir) == before

        second = publish(tmp_path, index_dir, 20)
        wait_for(lambda: answer(server)[0] == second, "the swap")
        assert "20 weeks" in answer(server)[1]
        wait_for(lambda: not copy.exists(), "the first copy to be removed")
        assert len(list(scratch.iterdir())) == 1
        assert server.stop() == 0
        assert "ERROR" not in server.output
    assert list(scratch.iterdir()) == []


def test_the_copies_of_a_killed_server_are_removed(environment: dict[str, str], tmp_path: Path) -> None:
    """The next server on this machine removes them, whatever it serves."""
    scratch = tmp_path / "scratch"
    publish(tmp_path, tmp_path / "mounted" / "index", 16)
    within = read_only(tmp_path / "mounted" / "index")
    with server_process(environment, tmp_path / "log", within) as server:
        server.wait_until_ready()
        server.stop(signal.SIGKILL)
    assert len(list(scratch.iterdir())) == 1
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        assert list(scratch.iterdir()) == []


def test_a_full_scratch_folder_is_reported(environment: dict[str, str], tmp_path: Path) -> None:
    """The text names the setting to change."""
    publish(tmp_path, tmp_path / "mounted" / "index", 16)
    within = [*read_only(tmp_path / "mounted" / "index"), *small(tmp_path / "scratch")]
    with server_process(environment, tmp_path / "log", within) as server:
        health = wait_for(server.health, "an answer")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "No space left on device): set SCRATCH_DIR" in health.json()["detail"]


def flip_data(volume: Path, made: Path) -> None:
    """Update a volume in the way of Kubernetes: all files are links by way of `..data`, which is replaced."""
    version = volume / f"..{made.name}"
    subprocess.run(["cp", "-a", made, version], check=True)
    (volume / "..data_tmp").symlink_to(version.name)
    before = (volume / "..data").readlink() if (volume / "..data").exists() else None
    (volume / "..data_tmp").rename(volume / "..data")
    for name in ("CURRENT", "snapshots"):
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    if before is not None:
        shutil.rmtree(volume / before)


def test_a_read_only_kubernetes_volume_is_followed(environment: dict[str, str], tmp_path: Path) -> None:
    """It is empty at first, which /health reports, then has an index, then the next one."""
    volume = tmp_path / "mounted" / "index"
    volume.mkdir()
    with server_process(environment, tmp_path / "log", read_only(tmp_path / "mounted")) as server:
        health = wait_for(server.health, "an answer")
        wait_for(lambda: server.health().json()["status"] == "failed", "the failure")  # type: ignore[union-attr]
        health = server.health()
        assert health is not None
        assert health.status_code == 503
        assert f"there is no index in {volume}, and it is read-only: run make reindex" in health.text

        for weeks in (16, 20):
            made = tmp_path / f"v{weeks}"
            published = publish(tmp_path, made, weeks)
            flip_data(volume, made)
            wait_for(lambda: server.health().status_code == 200, "the index")  # type: ignore[union-attr]
            wait_for(lambda published=published: answer(server)[0] == published, "the index")
            assert f"{weeks} weeks" in answer(server)[1]
        wait_for(lambda: "detail" not in server.wait_until_ready(), "the old one to be forgotten")


def test_a_writable_kubernetes_volume_is_followed(
    settings: MakeSettings, serve: Serve, tmp_path: Path
) -> None:
    """The served index stays open while its files are removed."""
    volume = settings().index.dir
    volume.mkdir()
    flip_data(volume, publish_aside(tmp_path, 16))
    client = serve(settings())
    assert "16 weeks" in client.post("/query", json=QUESTION).json()["answer"]
    flip_data(volume, publish_aside(tmp_path, 20))
    wait_for(lambda: "20 weeks" in client.post("/query", json=QUESTION).json()["answer"], "the swap")
    assert "detail" not in client.get("/health").json()


def publish_aside(folder: Path, weeks: int) -> Path:
    made = folder / f"v{weeks}"
    publish(folder, made, weeks)
    return made
