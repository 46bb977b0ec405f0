"""The service as users start it, `python -m app` and `scripts/reindex.py`, in separate processes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fake_provider import FakeProvider, faults
from tests.support.serving import ROOT, clean_environment, run_reindex, server_process, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Settings with folders of this test, and one good document."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 16 weeks.")
    return {
        "DOCUMENTS_DIR": str(tmp_path / "documents"),
        "INDEX_DIR": str(tmp_path / "index"),
        "INDEX_POLL_S": "0.1",
        "PARSE_WORKERS": "1",
    }


@pytest.fixture
def go_on(
    environment: dict[str, str], provider: FakeProvider, provider_url: str
) -> Iterator[threading.Event]:
    """An event; until it is set, the provider sends no embedding, and no build can end."""
    event = threading.Event()
    provider.embeddings.fault = faults.held(event)
    environment["OPENAI_BASE_URL"] = f"{provider_url}/v1"
    yield event
    event.set()


def write_many_documents(folder: Path) -> None:
    """Write more documents than are read before the first embeddings arrive."""
    for count in range(1000):
        (folder / f"{count}.md").write_text(f"Text {count}.")


def test_two_servers_started_at_once_share_one_build(environment: dict[str, str], tmp_path: Path) -> None:
    """One builds, the other waits for it, and both become ready."""
    with (
        server_process(environment, tmp_path / "one.log") as one,
        server_process(environment, tmp_path / "two.log") as two,
    ):
        ids = [server.wait_until_ready()["index"]["id"] for server in (one, two)]
        assert ids[0] == ids[1]
        assert (one.output + two.output).count("index: built") == 1
    assert len(list((tmp_path / "index" / "snapshots").iterdir())) == 1


def test_a_reindex_reaches_a_running_server(environment: dict[str, str], tmp_path: Path) -> None:
    """The server swaps its index without a restart."""
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        (tmp_path / "documents" / "leave.md").write_text("Parental leave lasts 20 weeks.")
        done = run_reindex(environment, "--json")
        assert done.returncode == 0, done.stderr
        new = json.loads(done.stdout)["index"]

        def answer() -> str | None:
            question = {"query": "How long is parental leave?"}
            response = httpx.post(f"{server.url}/query", json=question, timeout=60).json()
            return response["answer"] if response["index"] == new else None

        assert "20 weeks" in wait_for(answer, "the server to serve the new index")
        assert server.stop() == 0


def test_several_workers_serve_one_index(environment: dict[str, str], tmp_path: Path) -> None:
    """All of them answer from the same index."""
    run_reindex(environment)
    with server_process(environment | {"WORKERS": "2"}, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: server.output.count("index: serving") == 2, "both workers")
        assert httpx.post(f"{server.url}/query", json={"query": "leave"}, timeout=60).status_code == 200
        assert server.stop() == 0


def test_a_worker_that_dies_is_logged_and_replaced(environment: dict[str, str], tmp_path: Path) -> None:
    """The log has its signal or exit status."""
    run_reindex(environment)
    log_level = {"WORKERS": "2", "LOG_LEVEL": "WARNING"}
    with server_process(environment | log_level, tmp_path / "log") as server:
        server.wait_until_ready()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        victim = int(wait_for(lambda: children.read_text().split()[-1:], "a worker")[0])
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: f"worker {victim} was killed by SIGKILL" in server.output, "it to be told")
        assert server.stop() == 0


def test_each_worker_is_ready_before_it_takes_requests(environment: dict[str, str], tmp_path: Path) -> None:
    """This holds from the first accepted connection, whichever worker accepts it."""
    run_reindex(environment)
    with server_process(environment | {"WORKERS": "3"}, tmp_path / "log") as server:
        first = wait_for(server.health, "the first answer")
        statuses = [first.status_code]
        while server.output.count("index: serving") < 3 or len(statuses) < 50:
            answer = httpx.post(f"{server.url}/query", json={"query": "leave"}, timeout=60)
            statuses.append(answer.status_code)
        assert set(statuses) == {200}


def test_workers_share_the_pages_of_the_index(environment: dict[str, str], tmp_path: Path) -> None:
    """They map its files, and run on uvloop and httptools."""
    run_reindex(environment)
    with server_process(environment | {"WORKERS": "2"}, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: server.output.count("index: serving") == 2, "both workers")
        maps = [Path(f"/proc/{child}/maps").read_text() for child in children_of(server.process.pid)]
        workers = [content for content in maps if "qdrant_edge" in content]
        assert len(workers) == 2
        for content in workers:
            assert str(tmp_path / "index" / "snapshots") in content
            assert "uvloop" in content
            assert "httptools" in content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_can_be_stopped_during_a_build(
    environment: dict[str, str], go_on: threading.Event, tmp_path: Path, number: signal.Signals
) -> None:
    """It ends soon with status 0, no traceback and no process left over, and the next start builds again."""
    write_many_documents(tmp_path / "documents")
    with server_process(environment, tmp_path / "log") as server:
        wait_for(lambda: "of 1001" in getattr(server.health(), "text", ""), "the build to begin")
        wait_for(lambda: len(children_of(server.process.pid)) > 1, "the readers to be started")
        children = children_of(server.process.pid)
        server.process.send_signal(number)
        go_on.set()
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.output
    assert children
    wait_for(lambda: not any(is_running(child) for child in children), "the readers to end")
    assert not (tmp_path / "index" / "CURRENT").exists()
    assert list((tmp_path / "index" / "snapshots").iterdir()) == []


def test_a_reindex_reports_documents_that_it_could_not_read(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Exit status 3 means that it is done, except for some documents."""
    (tmp_path / "documents" / "broken one.pdf").write_text("not a PDF")
    done = run_reindex(environment)
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert "1 documents, 1 chunks" in lines[0]
    assert lines[1:5] == ["2 added:", "  broken one.pdf", "  leave.md", "1 could not be read:"]
    assert lines[5].startswith("  broken one.pdf: not a valid PDF file")
    assert "2 of 2 documents read" in done.stderr


def test_a_reindex_can_report_as_json(environment: dict[str, str], tmp_path: Path) -> None:
    """--json prints one object for programs."""
    (tmp_path / "documents" / "empty.txt").touch()
    report = json.loads(run_reindex(environment, "--json").stdout)
    assert (report["documents"], report["chunks"]) == (1, 1)
    assert report["unread"][0]["name"] == "empty.txt"
    assert report["unread"][0]["status"] == "empty"


def test_a_reindex_without_documents_fails(environment: dict[str, str], tmp_path: Path) -> None:
    """The existing index is kept."""
    assert run_reindex(environment).returncode == 0
    before = (tmp_path / "index" / "CURRENT").read_text()
    (tmp_path / "documents" / "leave.md").unlink()
    done = run_reindex(environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no documents" in done.stderr
    assert (tmp_path / "index" / "CURRENT").read_text() == before


def test_a_reindex_rejects_unknown_arguments(environment: dict[str, str]) -> None:
    """A misspelled option does not start a build."""
    assert run_reindex(environment, "--no-such").returncode == 2


def test_a_reindex_shows_a_progress_bar_on_a_terminal(environment: dict[str, str]) -> None:
    """The bar names each stage of the run."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "reindex.py")],
        env=clean_environment() | environment | {"TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = read_terminal(controller)
    assert process.wait(60) == 0
    for stage in ("Comparing documents", "Reading and embedding", "Saving and checking"):
        assert stage in shown
    assert "━" in shown


def test_ctrl_c_ends_a_reindex_and_changes_nothing(
    environment: dict[str, str], go_on: threading.Event, provider: FakeProvider, tmp_path: Path
) -> None:
    """The signal goes to the whole process group, as from a terminal."""
    write_many_documents(tmp_path / "documents")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "reindex.py")],
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: provider.embeddings.requests, "the provider to be asked")
    os.killpg(process.pid, signal.SIGINT)
    go_on.set()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_ctrl_c_while_readers_start_leaves_no_traceback(environment: dict[str, str], tmp_path: Path) -> None:
    """The reader processes are still importing then."""
    hanging, listener = hanging_provider(environment)
    with listener:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "reindex.py")],
            env=clean_environment() | hanging | {"PARSE_WORKERS": "4"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(lambda: len(children_of(process.pid)) >= 2, "the readers to be started")
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (1, "Failed: cancelled; nothing was changed")
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors


def hanging_provider(environment: dict[str, str]) -> tuple[dict[str, str], socket.socket]:
    """Run a provider that accepts requests and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    return environment | {"OPENAI_BASE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"}, listener


def test_a_server_can_be_stopped_while_the_provider_hangs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A build that waits for the provider does not delay the stop."""
    hanging, listener = hanging_provider(environment)
    with listener, server_process(hanging, tmp_path / "log") as server:
        listener.accept()
        assert server.stop() == 0


def test_a_second_ctrl_c_ends_a_reindex_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    """It does not wait for the provider."""
    hanging, listener = hanging_provider(environment)
    with listener:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "reindex.py")],
            env=clean_environment() | hanging,
            stderr=subprocess.PIPE,
            text=True,
        )
        listener.accept()
        process.send_signal(signal.SIGINT)
        wait_for(lambda: not is_pending(process.pid, signal.SIGINT), "the first to be taken")
        # The Python handler runs a moment after the signal is delivered.
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Stopped at once" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_an_incomplete_body_does_not_delay_a_stop(environment: dict[str, str], tmp_path: Path) -> None:
    """A client that stops sending is disconnected."""
    with server_process(environment | {"REQUEST_TIMEOUT_S": "1"}, tmp_path / "log") as server:
        server.wait_until_ready()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in connection.recv(4096)
            assert server.stop() == 0


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_an_impossible_index_dir_is_reported_in_one_line(
    environment: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """The error names the path."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if kind == "file" else tmp_path / "file" / "sub"
    done = run_reindex(environment | {"INDEX_DIR": str(folder)})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "file") in done.stderr


def children_of(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for children in listed for child in children.read_text().split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_pending(process: int, number: int) -> bool:
    """Return True if a signal has not been delivered yet; sending it again would be lost."""
    status = Path(f"/proc/{process}/status").read_text()
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def read_terminal(controller: int) -> str:
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(controller, 4096)
        except OSError:  # Linux reports a closed terminal in this way
            break
        if not part:
            break
        shown += part
    os.close(controller)
    return shown.decode()
