"""Swaps of the index: a request keeps the index that it began with, and the last reader's end closes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from app.storage.disk.snapshot_store import SnapshotStore
from tests.conftest import build
from tests.fake_provider import FakeProvider, faults
from tests.support.serving import ServerProcess, server_process, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]

QUESTION = {"query": "How long is parental leave?"}


@pytest.fixture
def pausing(provider: FakeProvider) -> threading.Event:
    """Answer with one word, and with the rest when the event is set."""
    goes_on = threading.Event()

    provider.chat.fault = faults.held_stream(goes_on, from_piece=1)
    return goes_on


@pytest.fixture
def server(openai_settings: MakeSettings, tmp_path: Path) -> Iterator[ServerProcess]:
    """A process of its own, so that all open files are the server's."""
    settings = openai_settings()
    build(settings)
    environment = {
        "DOCUMENTS_DIR": str(settings.documents.dir),
        "INDEX_DIR": str(settings.index.dir),
        "INDEX_POLL_S": "0.05",
        "OPENAI_BASE_URL": str(settings.provider.base_url),
        # A stream is held for a build and a swap.
        "REQUEST_TIMEOUT_S": "110",
        "STREAM_IDLE_TIMEOUT_S": "110",
    }
    with server_process(environment, tmp_path / "log") as process:
        process.wait_until_ready()
        yield process


def publish_next(settings: Settings, weeks: int) -> str:
    (settings.documents.dir / "leave.md").write_text(f"Parental leave lasts {weeks} weeks.")
    build(settings)
    return (settings.index.dir / "CURRENT").read_text().strip()


def open_files(server: ServerProcess, snapshot_id: str) -> set[str]:
    """Return the files of a snapshot that the server has open or mapped."""
    process = Path(f"/proc/{server.process.pid}")
    maps = {line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines()}
    opened = set()
    for descriptor in (process / "fd").iterdir():
        try:
            opened.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed since
            continue
    return {path for path in maps | opened if snapshot_id in path}


def assert_not_touched(index_dir: Path, snapshot_id: str) -> None:
    """Assert that a snapshot keeps its times, so that a rollback does not have to verify it."""
    snapshot = SnapshotStore(index_dir, keep=3).open(snapshot_id)
    times = {name: (snapshot.path / name).stat().st_mtime_ns for name in snapshot.manifest.files}
    assert times == {name: info.mtime_ns for name, info in snapshot.manifest.files.items()}


def served(server: ServerProcess) -> str:
    index: str = httpx.get(f"{server.url}/health", timeout=60).json()["index"]["id"]
    return index


@contextmanager
def streaming(server: ServerProcess) -> Iterator[Iterator[str]]:
    """Yield the lines of a stream whose first token has arrived."""
    with httpx.stream("POST", f"{server.url}/query/stream", json=QUESTION, timeout=60) as response:
        lines = response.iter_lines()
        for line in lines:
            if line.startswith('data: {"token"'):
                break
        yield lines


def test_a_request_keeps_its_index_and_is_its_last_reader(
    pausing: threading.Event, server: ServerProcess, openai_settings: MakeSettings
) -> None:
    """Both the index loaded before the garbage collector is relaxed and the next one are closed."""
    for weeks in (20, 24):
        pausing.clear()
        before = served(server)
        with streaming(server) as lines:
            after = publish_next(openai_settings(), weeks)
            wait_for(lambda after=after: served(server) == after, "the swap")
            assert open_files(server, before)
            pausing.set()
            rest = "\n".join(lines)
        assert f'"index":"{before}"' in rest
        assert rest.rstrip().endswith("data: [DONE]")
        answer = httpx.post(f"{server.url}/query", json=QUESTION, timeout=60).json()
        assert answer["index"] == after
        assert f"{weeks} weeks" in answer["citations"][0]["text"]
        wait_for(lambda before=before: not open_files(server, before), "the index before to be closed")
        assert open_files(server, after)
        assert_not_touched(openai_settings().index.dir, before)


def test_failed_requests_do_not_keep_an_index_open(
    provider: FakeProvider, server: ServerProcess, openai_settings: MakeSettings
) -> None:
    """Neither do requests whose client disconnects."""
    provider.chat.fault = faults.status(400)
    before = served(server)
    for _ in range(3):
        assert httpx.post(f"{server.url}/query", json=QUESTION, timeout=60).status_code == 502
    provider.chat.fault = None
    provider.token_s = 60
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/query/stream", json=QUESTION, timeout=0.5).read()
    after = publish_next(openai_settings(), 20)
    wait_for(lambda: served(server) == after, "the swap")
    wait_for(lambda: not open_files(server, before), "the index before to be closed")
