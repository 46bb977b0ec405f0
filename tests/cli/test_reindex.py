"""`scripts/reindex.py` as an operator runs it: what it prints, its exit status, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from app.storage.disk.snapshot_store import SnapshotStore
from tests.conftest import build
from tests.fake_provider import Exchange, FakeProvider, faults
from tests.support.made_snapshots import flip, folder_of
from tests.support.serving import ROOT, clean_environment, run_reindex, server_process, wait_for
from tests.support.stored import stored

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, str(ROOT / "scripts" / "reindex.py")]
UNKNOWN = "20200101T000000Z-abcdef"
Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Folders of this test's own, with one good document."""
    (tmp_path / "documents").mkdir()
    write(tmp_path, 16)
    return {
        "DOCUMENTS_DIR": str(tmp_path / "documents"),
        "INDEX_DIR": str(tmp_path / "index"),
        "INDEX_POLL_S": "0.1",
        "PARSE_WORKERS": "1",
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index directory with three snapshots, which say 16, 18 and 20 weeks."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "documents").mkdir()
    for weeks in (16, 18, 20):
        write(folder, weeks)
        build(Settings(documents_dir=folder / "documents", index_dir=folder / "index", parse_workers=1))
    return folder / "index"


@pytest.fixture
def ids(built: Path, environment: Environment, tmp_path: Path) -> list[str]:
    """Of the snapshots that are there, oldest first; the last is served, and fits the document."""
    subprocess.run(["cp", "-a", built, tmp_path / "index"], check=True)
    write(tmp_path, 20)
    return SnapshotStore(tmp_path / "index", keep=3).ids()


def write(folder: Path, weeks: int) -> None:
    (folder / "documents" / "leave.md").write_text(f"Parental leave lasts {weeks} weeks.")


def served(folder: Path) -> str:
    return (folder / "index" / "CURRENT").read_text().strip()


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All that is in a folder, with the times of files."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_failed(done: subprocess.CompletedProcess[str], said: str) -> None:
    """With one line that says it."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    failures = [line for line in done.stderr.splitlines() if line.startswith("Failed: ")]
    assert len(failures) == 1
    assert said in failures[0]
    assert "Traceback" not in done.stderr


def test_a_plan_is_printed_and_nothing_is_written(
    environment: Environment, ids: list[str], tmp_path: Path
) -> None:
    """The status is 3 if documents could not be read."""
    (tmp_path / "documents" / "travel.md").write_text("Trains are booked in second class.")
    (tmp_path / "documents" / "broken.pdf").write_text("not a PDF")
    before = tree(tmp_path / "index")
    done = run_reindex(environment, "--plan")
    assert tree(tmp_path / "index") == before
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Plan: 2 documents, 2 chunks; nothing was written")
    assert lines[1:5] == ["2 added:", "  broken.pdf", "  travel.md", "1 could not be read:"]
    assert lines[5].startswith("  broken.pdf: not a valid PDF file")
    assert lines[6].startswith("1 texts would be embedded, about ")
    assert "tokens, about $0.0000" in lines[6]


def test_a_plan_counts_the_texts_that_would_be_paid_for(
    environment: Environment,
    tmp_path: Path,
    provider: FakeProvider,
    provider_url: str,
) -> None:
    """It asks no provider and makes no folder, and its status is 0 if all documents can be read."""
    (tmp_path / "documents" / "copy.md").write_text("Parental leave lasts 16 weeks.")
    done = run_reindex(
        environment | {"OPENAI_BASE_URL": f"{provider_url}/v1", "EMBEDDING_PRICE": "1000"},
        "--plan",
        "--json",
    )
    assert (done.returncode, provider.embeddings.requests) == (0, [])
    assert not (tmp_path / "index").exists()
    report = json.loads(done.stdout)
    assert (report["index"], report["planned"], report["published"]) == (None, True, False)
    assert (report["documents"], report["chunks"], report["embedded"]) == (2, 2, 1)
    assert (report["added"], report["unread"]) == (["copy.md", "leave.md"], [])
    assert 5 <= report["tokens"] <= 20
    assert report["cost_usd"] == report["tokens"] / 1000


def test_the_indexes_are_listed_newest_first(
    environment: Environment, ids: list[str], tmp_path: Path
) -> None:
    """The list marks the served index, and any damage."""
    oldest, middle, newest = ids
    flip(folder_of(tmp_path / "index", middle) / "documents.jsonl")
    before = tree(tmp_path / "index")
    done = run_reindex(environment, "--list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [newest, middle, oldest]
    assert lines[0].startswith(f"{newest} (served)  1 documents, 1 chunks, ")
    assert lines[1].startswith(f"{middle}  damaged: ")
    assert lines[2].startswith(f"{oldest}  1 documents, 1 chunks, ")

    listed = json.loads(run_reindex(environment, "--list", "--json").stdout)
    assert [(each["id"], each["current"]) for each in listed] == [
        (newest, True),
        (middle, False),
        (oldest, False),
    ]
    assert [each["problem"] is None for each in listed] == [True, False, True]
    assert listed[0].keys() >= {"built_at", "documents", "chunks", "embedding", "bytes"}
    assert tree(tmp_path / "index") == before


def test_without_an_index_the_list_is_empty(environment: Environment, tmp_path: Path) -> None:
    done = run_reindex(environment, "--list")
    assert (done.returncode, done.stdout) == (0, f"There is no index in {tmp_path / 'index'}\n")
    assert json.loads(run_reindex(environment, "--list", "--json").stdout) == []
    assert not (tmp_path / "index").exists()


def test_a_rollback_reaches_a_running_server(
    environment: Environment, ids: list[str], tmp_path: Path
) -> None:
    """Without an id it takes the previous index, with an id any other."""
    oldest, middle, newest = ids
    with server_process(environment, tmp_path / "log") as server:
        assert server.wait_until_ready()["index"]["id"] == newest

        def answers(index: str, weeks: int) -> bool:
            body = httpx.post(
                f"{server.url}/query", json={"query": "How long is parental leave?"}, timeout=60
            ).json()
            assert f"{ {oldest: 16, middle: 18, newest: 20}[body['index']] } weeks" in body["answer"]
            return bool(body["index"] == index and f"{weeks} weeks" in body["answer"])

        done = run_reindex(environment, "--rollback")
        assert (done.returncode, done.stdout) == (0, f"Index {middle} is served again\n")
        wait_for(lambda: answers(middle, 18), "the one before")
        done = run_reindex(environment, "--rollback", newest, "--json")
        assert json.loads(done.stdout) == {"index": newest}
        wait_for(lambda: answers(newest, 20), "the newest again")
        run_reindex(environment, "--rollback", oldest)
        wait_for(lambda: answers(oldest, 16), "the oldest")


def test_a_rollback_to_an_unknown_id_names_the_known_ones(
    environment: Environment, ids: list[str], tmp_path: Path
) -> None:
    assert_failed(
        run_reindex(environment, "--rollback", UNKNOWN), f"no snapshot {UNKNOWN}; there are {', '.join(ids)}"
    )
    assert served(tmp_path) == ids[-1]


def test_a_rollback_without_any_index_fails(environment: Environment) -> None:
    assert_failed(run_reindex(environment, "--rollback"), "there are none at all")


def test_a_full_run_embeds_everything_again(environment: Environment, ids: list[str], tmp_path: Path) -> None:
    """It does so even if nothing has changed; without it, the index stays."""
    done = run_reindex(environment)
    assert (done.returncode, served(tmp_path)) == (0, ids[-1])
    assert f"Nothing has changed: index {ids[-1]} stays" in done.stdout
    report = json.loads(run_reindex(environment, "--full", "--json").stdout)
    assert (report["published"], report["embedded"], report["index"]) == (True, 1, served(tmp_path))
    assert served(tmp_path) not in ids


def test_losing_many_documents_needs_force(environment: Environment, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "documents" / f"{number}.md").write_text(f"Text of number {number}.")
    assert run_reindex(environment).returncode == 0
    before = tree(tmp_path / "index" / "snapshots")
    for number in range(2):
        (tmp_path / "documents" / f"{number}.md").unlink()
    planned = run_reindex(environment, "--plan")
    assert (planned.returncode, "It would be refused: 2 of 5 documents" in planned.stdout) == (0, True)
    assert "2 of 5" in json.loads(run_reindex(environment, "--plan", "--json").stdout)["refused"]
    assert json.loads(run_reindex(environment, "--plan", "--force", "--json").stdout)["refused"] is None
    assert_failed(run_reindex(environment), "2 of 5 documents would be gone")
    assert_failed(run_reindex(environment, "--full"), "run scripts/reindex.py --force")
    assert tree(tmp_path / "index" / "snapshots") == before
    report = json.loads(run_reindex(environment, "--force", "--json").stdout)
    assert (report["documents"], report["removed"]) == (3, ["0.md", "1.md"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--full", "--rollback"],
        ["--force", "--list"],
        ["--plan", "--watch"],
        ["--list", "--rollback", UNKNOWN],
        ["an", "argument"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(environment: Environment, tmp_path: Path, arguments: list[str]) -> None:
    done = run_reindex(environment, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: reindex.py" in done.stderr
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("arguments", [[], ["--list"], ["--watch"]], ids=str)
def test_an_invalid_setting_is_one_line_and_status_2(environment: Environment, arguments: list[str]) -> None:
    done = run_reindex(environment | {"MAX_SHRINK": "2"}, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Wrong setting: MAX_SHRINK: ")


class Watching:
    """`--watch`, with what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        def is_there() -> bool:
            assert self.process.poll() is None, self.output
            return self.output.count(text) >= times

        wait_for(is_there, f"{text!r} in what it prints")


@contextmanager
def watching(environment: Environment, log: Path) -> Iterator[Watching]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "--watch"],
            # What goes to a file is printed when it comes.
            env=clean_environment() | environment | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Watching(process, log)
    finally:
        process.kill()
        process.wait(30)


def answers(folder: Path, text: str) -> bool:
    """Whether the index has one chunk, and that is it."""
    return [chunk.text for chunk, _, _ in stored(folder / "index").chunks.values()] == [text]


def test_watch_reindexes_a_changed_document(environment: Environment, tmp_path: Path) -> None:
    """A failed run does not end the command, and Ctrl-C ends it quietly."""
    document = tmp_path / "documents" / "leave.md"
    with watching(environment, tmp_path / "log") as command:
        command.wait_for("1 texts embedded")
        assert answers(tmp_path, "Parental leave lasts 16 weeks.")
        document.unlink()
        command.wait_for("Failed: ")
        assert "holds no documents" in command.output
        write(tmp_path, 20)
        command.wait_for("1 texts embedded", times=2)
        assert answers(tmp_path, "Parental leave lasts 20 weeks.")
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(30) == 0
        assert "Traceback" not in command.output


def test_a_run_has_a_lower_priority_than_a_server(environment: Environment, tmp_path: Path) -> None:
    """A server on the same machine has the processor first."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with watching(environment, tmp_path / "log") as command:
        command.wait_for("1 texts embedded")
        assert os.getpriority(os.PRIO_PROCESS, command.process.pid) == min(own + 10, 19)


def test_watch_notices_changes_of_a_kubernetes_volume(environment: Environment, tmp_path: Path) -> None:
    """Its files change by a symbolic link with a hidden name."""
    volume = tmp_path / "documents"
    (volume / "leave.md").unlink()
    (volume / "leave.md").symlink_to("..data/leave.md")
    flip_data(volume, 16)
    with watching(environment, tmp_path / "log") as command:
        command.wait_for("1 texts embedded")
        flip_data(volume, 20)
        command.wait_for("1 texts embedded", times=2)
        assert answers(tmp_path, "Parental leave lasts 20 weeks.")


def flip_data(volume: Path, weeks: int) -> None:
    """As Kubernetes does it: the next folder aside, then its link in the place of the one before."""
    (volume / f"..{weeks}").mkdir()
    (volume / f"..{weeks}" / "leave.md").write_text(f"Parental leave lasts {weeks} weeks.")
    (volume / "..data_tmp").symlink_to(f"..{weeks}")
    (volume / "..data_tmp").rename(volume / "..data")


def test_watch_notices_changes_during_the_first_run(
    environment: Environment,
    tmp_path: Path,
    provider: FakeProvider,
    provider_url: str,
) -> None:
    async def change(exchange: Exchange) -> None:
        if len(provider.embeddings.requests) <= 1:
            write(tmp_path, 20)
        await exchange.answer_well()

    provider.embeddings.fault = change
    environment["OPENAI_BASE_URL"] = f"{provider_url}/v1"
    with watching(environment, tmp_path / "log") as command:
        command.wait_for("1 texts embedded", times=2)
        assert answers(tmp_path, "Parental leave lasts 20 weeks.")


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_watch_fails_without_a_folder(environment: Environment, tmp_path: Path, when: str) -> None:
    if when == "before":
        shutil.rmtree(tmp_path / "documents")
    with watching(environment, tmp_path / "log") as command:
        if when == "meanwhile":
            command.wait_for("1 texts embedded")
            shutil.rmtree(tmp_path / "documents")
        assert command.process.wait(30) == 1
        assert f"Failed: there is no folder {tmp_path / 'documents'} to watch" in command.output
        assert "Traceback" not in command.output


def test_seven_of_eight_concurrent_runs_name_the_eighth(
    environment: Environment,
    ids: list[str],
    tmp_path: Path,
    provider: FakeProvider,
    provider_url: str,
) -> None:
    """The eighth gets no answer from its provider until the others have ended."""
    go_on = threading.Event()
    provider.embeddings.fault = faults.held(go_on)
    environment["OPENAI_BASE_URL"] = f"{provider_url}/v1"
    running = [
        subprocess.Popen(COMMAND, env=clean_environment() | environment, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    try:
        wait_for(lambda: sum(each.poll() is not None for each in running) == 7, "seven to end")
        (writer,) = (each for each in running if each.poll() is None)
        assert served(tmp_path) == ids[-1]
        go_on.set()
        assert writer.wait(30) == 0
        for each in running:
            _, errors = each.communicate(timeout=30)
            if each is not writer:
                assert each.returncode == 1
                assert f"is being written by process {writer.pid} on {socket.gethostname()}" in errors
    finally:
        go_on.set()
        for each in running:
            each.kill()
    assert served(tmp_path) not in ids
    assert len(stored(tmp_path / "index").chunks) == 1
