"""Finding and hashing the files of the documents folder, and reading them in parallel."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from app.documents.discovery import SourceFile, inspect, walk
from app.documents.reader_pool import ReaderPool, ReadFile
from app.domain.document import DocumentStatus
from app.domain.errors import NoDocuments
from tests.support.readers import read_text, tell, wait_if_first
from tests.support.reading import DEFAULT_LIMITS, file_at
from tests.support.serving import wait_for


def inspect_all(folder: Path) -> dict[str, SourceFile]:
    return {file.name: file for file in inspect(folder, walk(folder))}


def read_all(folder: Path) -> dict[str, ReadFile[str]]:
    reader = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_text)
    return {document.name: document for document in reader.read_all(inspect_all(folder).values())}


def test_names_are_paths_below_the_folder(tmp_path: Path) -> None:
    """Names may contain any characters that a file system allows."""
    names = ['a b/it\'s "quoted".txt', "straße/日本語.md", "x.txt", "UPPER.TXT"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [file.name for file in walk(tmp_path)] == sorted(names)
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == dict.fromkeys(
        sorted(names), DocumentStatus.INDEXED
    )


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    """File names are bytes, and JSON is text."""
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == {
        "caf\\xe9.txt": DocumentStatus.INDEXED
    }


def test_hidden_files_and_lock_files_are_skipped(tmp_path: Path) -> None:
    """Neither is a document."""
    for name in (".DS_Store", "~$report.docx", ".git/config", "kept.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [file.name for file in walk(tmp_path)] == ["kept.txt"]


def test_links_that_lead_outside_are_not_followed(tmp_path: Path) -> None:
    """Otherwise, anyone who may add a document could have any file of the server quoted."""
    inside, outside = tmp_path / "documents", tmp_path / "secret.txt"
    inside.mkdir()
    outside.write_text("the secret")
    (inside / "real.txt").write_text("real")
    (inside / "good.txt").symlink_to("real.txt")
    (inside / "bad.txt").symlink_to(outside)
    (inside / "folder").symlink_to(tmp_path)
    (inside / "gone.txt").symlink_to("nowhere")
    (inside / "loop.txt").symlink_to("loop.txt")

    documents = read_all(inside)

    assert documents["good.txt"].content == "real"
    assert documents["bad.txt"].status is DocumentStatus.OUTSIDE
    assert documents["gone.txt"].status is DocumentStatus.UNREADABLE
    assert documents["loop.txt"].status is DocumentStatus.UNREADABLE
    assert documents["folder"].status is DocumentStatus.OUTSIDE
    assert not any("secret" in (document.content or "") for document in documents.values())


def test_the_links_of_a_mounted_configmap_are_followed(tmp_path: Path) -> None:
    """Each file is a link into a hidden folder, which is a link as well."""
    (tmp_path / "..2026_11_20").mkdir()
    (tmp_path / "..2026_11_20" / "leave.md").write_text("text")
    (tmp_path / "..data").symlink_to("..2026_11_20")
    (tmp_path / "leave.md").symlink_to("..data/leave.md")
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == {
        "leave.md": DocumentStatus.INDEXED
    }


def test_special_files_are_reported_and_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait until something is written to it."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("pipe.txt")
    files = inspect_all(tmp_path)
    assert {file.problem for file in files.values()} == {"it is not a regular file"}
    assert len(files) == 2


def test_control_characters_in_a_name_are_escaped(tmp_path: Path) -> None:
    """Unescaped, they could forge lines of a log."""
    (tmp_path / "a\n2026 ERROR forged\x1b[31m.txt").write_text("text")
    (name,) = inspect_all(tmp_path)
    assert name == "a\\n2026 ERROR forged\\x1b[31m.txt"


def test_a_folder_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    """Its documents do not disappear from the index silently."""
    (tmp_path / "secret").mkdir(mode=0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be opened" in (inspect_all(tmp_path)["secret"].problem or "")


def test_the_error_of_a_missing_folder_names_the_setting(tmp_path: Path) -> None:
    """An operator learns what to change."""
    with pytest.raises(NoDocuments, match="DOCUMENTS_DIR"):
        walk(tmp_path / "missing")


@pytest.mark.parametrize("large", [[], ["0.txt"], ["5.txt"], ["2.txt", "3.txt", "9.txt"]])
def test_files_are_inspected_in_order(tmp_path: Path, large: list[str]) -> None:
    """Large files keep their place, although hashing them takes longer."""
    contents = {f"{number}.txt": b"%d" % number * 10 for number in range(10)}
    contents |= {name: os.urandom(3 << 20) for name in large}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files = inspect_all(tmp_path)
    assert list(files) == sorted(contents)
    for name, content in contents.items():
        assert (files[name].sha256, files[name].size) == (hashlib.sha256(content).hexdigest(), len(content))
        assert files[name].status is None


def test_a_file_is_hashed_before_it_is_read(tmp_path: Path) -> None:
    """A change in between is noticed by the next run."""
    (tmp_path / "a.txt").write_text("before")
    files = list(inspect_all(tmp_path).values())
    (tmp_path / "a.txt").write_text("after")
    (document,) = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_text).read_all(files)
    assert document.content == "after"
    assert document.sha256 == hashlib.sha256(b"before").hexdigest()


def test_documents_come_as_they_are_done(tmp_path: Path) -> None:
    """A slow file does not delay the others."""
    names = [f"{number}.txt" for number in range(1, 10)]
    for name in names:
        (tmp_path / name).write_text(name)
    reader = ReaderPool(workers=2, limits=DEFAULT_LIMITS, read=wait_if_first)
    documents = reader.read_all([file_at(tmp_path / name) for name in names])
    assert sorted(next(documents).name for _ in names[1:]) == names[1:]
    (tmp_path / "go").touch()
    assert [document.name for document in documents] == names[:1]


def test_processes_keep_reading_while_the_caller_is_busy(tmp_path: Path) -> None:
    """The caller has work to do for each document."""
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(name)
    reader = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=tell)
    documents = reader.read_all(inspect_all(tmp_path).values())
    next(documents)
    wait_for((tmp_path / "2.begun").exists, "the second file to be read")
    documents.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_few_documents_are_held_in_memory(tmp_path: Path, workers: int) -> None:
    """The limit holds however slowly the caller takes them."""
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("text")
    begun = 0

    def counted(files: Iterable[SourceFile]) -> Iterator[SourceFile]:
        nonlocal begun
        for file in files:
            begun += 1
            yield file

    reader = ReaderPool(workers=workers, limits=DEFAULT_LIMITS, read=tell)
    for taken, _ in enumerate(reader.read_all(counted(inspect_all(tmp_path).values()))):
        assert begun - taken <= 2 * workers
        wait_for(lambda: len([*tmp_path.glob("*.begun")]) == begun, "the processes to do what they may")
    assert begun == 20


def test_no_process_is_started_without_files_to_read(tmp_path: Path) -> None:
    """A run without changes ends before a process could start."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    before = set(multiprocessing.active_children())
    for document in ReaderPool(workers=2, limits=DEFAULT_LIMITS, read=read_text).read_all(
        inspect_all(tmp_path).values()
    ):
        assert document.status is DocumentStatus.UNREADABLE
        assert set(multiprocessing.active_children()) == before


def test_no_process_is_left(tmp_path: Path) -> None:
    """The processes end after the last document, and when the caller stops early."""
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("text")
    before = set(multiprocessing.active_children())
    reader = ReaderPool(workers=2, limits=DEFAULT_LIMITS, read=read_text)
    assert len(list(reader.read_all(inspect_all(tmp_path).values()))) == 10
    assert set(multiprocessing.active_children()) == before
    documents = reader.read_all(inspect_all(tmp_path).values())
    next(documents)
    assert len(set(multiprocessing.active_children()) - before) == 2
    documents.close()
    assert set(multiprocessing.active_children()) == before


def test_an_unreadable_file_has_its_own_status(tmp_path: Path) -> None:
    """A file without read permission has the status `unreadable`."""
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "locked.txt").write_text("locked")
    (tmp_path / "locked.txt").chmod(0)
    if os.access(tmp_path / "locked.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert inspect_all(tmp_path)["locked.txt"].status is DocumentStatus.UNREADABLE
