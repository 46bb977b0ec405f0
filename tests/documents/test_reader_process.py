"""Reader processes that hang, crash, are killed, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from app.documents.discovery import SourceFile
from app.documents.limits import ReadingLimits
from app.documents.reader_pool import ReaderPool, ReadFile
from app.domain.document import DocumentStatus
from tests.support.readers import behave
from tests.support.reading import DEFAULT_LIMITS, file_at, make_long_pdf
from tests.support.serving import ROOT, wait_for


def read_files(
    folder: Path, names: list[str], *, workers: int, limits: ReadingLimits = DEFAULT_LIMITS
) -> list[ReadFile[str]]:
    for name in names:
        (folder / name).write_text(name)
    reader = ReaderPool(workers=workers, limits=limits, read=behave)
    return list(reader.read_all([file_at(folder / name) for name in names]))


@contextmanager
def busy_threads(count: int) -> Iterator[None]:
    """Run threads that compete for the GIL all the time, like those of a running build."""
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            sum(number * number for number in range(10_000))

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_a_bad_file_does_not_affect_the_others(tmp_path: Path) -> None:
    """Whatever happens to its parser, it gets its own status, and the other files are read."""
    expected = {
        "1.txt": (DocumentStatus.INDEXED, None),
        "2-hang.txt": (DocumentStatus.TIMED_OUT, "PARSE_TIMEOUT_S (10 s)"),
        "3.txt": (DocumentStatus.INDEXED, None),
        "4-crash.txt": (DocumentStatus.CRASHED, "SIGABRT"),
        "5-raise.txt": (DocumentStatus.UNREADABLE, "RuntimeError: inside the parser"),
        "6.txt": (DocumentStatus.INDEXED, None),
        "7-killed.txt": (DocumentStatus.CRASHED, "SIGKILL"),
        "8-talk.txt": (DocumentStatus.INDEXED, None),
    }
    limits = replace(DEFAULT_LIMITS, timeout_s=10)
    documents = {
        document.name: document for document in read_files(tmp_path, list(expected), workers=2, limits=limits)
    }
    assert sorted(documents) == sorted(expected)
    for name, (status, problem) in expected.items():
        assert documents[name].status is status
        assert documents[name].content == (name if status is DocumentStatus.INDEXED else None)
        assert (problem or "") in (documents[name].problem or "")


def test_crashes_are_attributed_to_their_files_while_the_parent_is_busy(tmp_path: Path) -> None:
    """A pool with one pipe for all workers mistakes one crash for another, or for a hang."""
    names = [f"{number}{'-crash' if number % 3 == 0 else ''}.txt" for number in range(12)]
    with busy_threads(2):
        documents = read_files(tmp_path, names, workers=3)
    assert {document.name for document in documents} == set(names)
    for document in documents:
        crashed = document.status is DocumentStatus.CRASHED
        assert crashed == ("crash" in document.name), document
        assert crashed or document.status is DocumentStatus.INDEXED


def test_an_idle_process_that_dies_costs_no_file(tmp_path: Path) -> None:
    """The system may kill it when memory is short."""
    before = set(multiprocessing.active_children())

    def files() -> Iterator[SourceFile]:
        for name in ("1.txt", "2.txt", "3.txt"):
            (tmp_path / name).write_text(name)
            for idle in set(multiprocessing.active_children()) - before:
                idle.kill()
                idle.join()
            yield file_at(tmp_path / name)

    documents = list(ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=behave).read_all(files()))
    assert [document.content for document in documents] == ["1.txt", "2.txt", "3.txt"]


class SlowToArrive:
    """A function that takes 3 s to unpickle in the reader process."""

    def __getstate__(self) -> str:
        return "packed"

    def __setstate__(self, _: str) -> None:
        time.sleep(3)

    def __call__(self, path: Path, name: str) -> str:
        return path.read_text()


def test_the_start_of_a_process_does_not_count_as_reading_time(tmp_path: Path) -> None:
    """It takes longer than most files, above all on a busy machine."""
    limits = replace(DEFAULT_LIMITS, timeout_s=2)
    (tmp_path / "1.txt").write_text("text")
    reader = ReaderPool(workers=1, limits=limits, read=SlowToArrive())
    (document,) = reader.read_all([file_at(tmp_path / "1.txt")])
    assert document.status is DocumentStatus.INDEXED


PARENT = """
import sys
from pathlib import Path
from app.documents.discovery import SourceFile
from app.documents.reader_pool import ReaderPool
from tests.support.reading import DEFAULT_LIMITS
from tests.support.readers import {read}

if __name__ == "__main__":
    files = [SourceFile(Path(name).name, Path(name), "", 0) for name in sys.argv[1:]]
    for document in ReaderPool(workers=2, limits=DEFAULT_LIMITS, read={read}).read_all(files):
        print(document.status)
    sys.stdin.read()
"""


@contextmanager
def parent_of_readers(folder: Path, read: str, files: list[Path]) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "parent.py").write_text(PARENT.format(read=read))
    with subprocess.Popen(
        [sys.executable, str(folder / "parent.py"), *map(str, files)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as parent:
        try:
            yield parent
        finally:
            parent.kill()


def has_ended(process: int) -> bool:
    """Return True for a zombie, too: in a container, there may be no process to reap it."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def number_in(path: Path) -> int:
    text = wait_for(lambda: path.exists() and path.read_text(), f"{path.name} to be written")
    return int(text)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """They end even if the parent is killed, whether they hang or are idle."""
    files = [tmp_path / "idle.txt", tmp_path / "hang.txt"]
    for file in files:
        file.write_text("text")
    with parent_of_readers(tmp_path, "tell_number", files) as parent:
        processes = [number_in(file.with_suffix(".pid")) for file in files]
        parent.kill()
        for process in processes:
            wait_for(lambda process=process: has_ended(process), "the process to end", limit_s=20)


def test_a_parsing_process_ends_with_its_parent(tmp_path: Path) -> None:
    """It would finish its file first if native code did not release the GIL."""
    pdf = make_long_pdf(tmp_path / "long.pdf")
    with parent_of_readers(tmp_path, "tell_number_and_end", [pdf]) as parent:
        process = number_in(pdf.with_suffix(".pid"))
        parent.kill()
        wait_for(lambda: has_ended(process), "the process to end", limit_s=20)
    assert not pdf.with_suffix(".done").exists()
