"""The folder: which files there are, what is in them, and reading them side by side."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from app.documents.discovery import InspectedFile, inspect, walk
from app.documents.reader_pool import Document, ReaderPool
from app.domain.document import DocumentStatus
from app.domain.errors import NoDocuments
from tests.support.readers import read_text, tell, wait_if_first
from tests.support.reading import DEFAULT_LIMITS, file_at
from tests.support.serving import wait_for


def inspect_all(folder: Path) -> dict[str, InspectedFile]:
    return {file.name: file for file in inspect(folder, walk(folder))}


def read_all(folder: Path) -> dict[str, Document[str]]:
    reader = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_text)
    return {document.name: document for document in reader.read_all(inspect_all(folder).values())}


def test_names_are_paths_below_the_folder(tmp_path: Path) -> None:
    """With whatever characters a file system allows."""
    names = ['a b/it\'s "quoted".txt', "straße/日本語.md", "x.txt", "UPPER.TXT"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [file.name for file in walk(tmp_path)] == sorted(names)
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == dict.fromkeys(
        sorted(names), DocumentStatus.INDEXED
    )


def test_a_name_that_is_not_utf8_is_made_readable(tmp_path: Path) -> None:
    """Names are bytes; JSON is not."""
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == {
        "caf\\xe9.txt": DocumentStatus.INDEXED
    }


def test_hidden_and_lock_files_are_passed_over(tmp_path: Path) -> None:
    for name in (".DS_Store", "~$report.docx", ".git/config", "kept.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [file.name for file in walk(tmp_path)] == ["kept.txt"]


def test_links_may_not_lead_outside(tmp_path: Path) -> None:
    """Else whoever may add a document could have any file of the server quoted."""
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


def test_folders_are_linked_inside_as_kubernetes_does(tmp_path: Path) -> None:
    """A mounted ConfigMap: each file is a link into a hidden folder, which is a link, too."""
    (tmp_path / "..2026_11_20").mkdir()
    (tmp_path / "..2026_11_20" / "leave.md").write_text("text")
    (tmp_path / "..data").symlink_to("..2026_11_20")
    (tmp_path / "leave.md").symlink_to("..data/leave.md")
    documents = read_all(tmp_path)
    assert {name: document.status for name, document in documents.items()} == {
        "leave.md": DocumentStatus.INDEXED
    }


def test_what_is_not_a_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    """Opening a pipe would wait for somebody to write into it."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("pipe.txt")
    files = inspect_all(tmp_path)
    assert {file.problem for file in files.values()} == {"it is not a regular file"}
    assert len(files) == 2


def test_control_characters_in_a_name_are_shown_escaped(tmp_path: Path) -> None:
    """Raw, they would forge lines of a log."""
    (tmp_path / "a\n2026 ERROR forged\x1b[31m.txt").write_text("text")
    (name,) = inspect_all(tmp_path)
    assert name == "a\\n2026 ERROR forged\\x1b[31m.txt"


def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """Its documents would vanish from the index without a word."""
    (tmp_path / "secret").mkdir(mode=0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be opened" in (inspect_all(tmp_path)["secret"].problem or "")


def test_a_missing_folder_says_which_setting(tmp_path: Path) -> None:
    with pytest.raises(NoDocuments, match="DOCUMENTS_DIR"):
        walk(tmp_path / "missing")


@pytest.mark.parametrize("large", [[], ["0.txt"], ["5.txt"], ["2.txt", "3.txt", "9.txt"]])
def test_files_are_looked_into_in_order(tmp_path: Path, large: list[str]) -> None:
    """Also while large ones take longer."""
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
    """What changes in between is taken for changed by the next run, and not for known."""
    (tmp_path / "a.txt").write_text("before")
    files = list(inspect_all(tmp_path).values())
    (tmp_path / "a.txt").write_text("after")
    (document,) = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=read_text).read_all(files)
    assert document.content == "after"
    assert document.sha256 == hashlib.sha256(b"before").hexdigest()


def test_documents_come_as_they_are_done(tmp_path: Path) -> None:
    """A slow one keeps no other back."""
    names = [f"{number}.txt" for number in range(1, 10)]
    for name in names:
        (tmp_path / name).write_text(name)
    reader = ReaderPool(workers=2, limits=DEFAULT_LIMITS, read=wait_if_first)
    documents = reader.read_all([file_at(tmp_path / name) for name in names])
    assert sorted(next(documents).name for _ in names[1:]) == names[1:]
    (tmp_path / "go").touch()
    assert [document.name for document in documents] == names[:1]


def test_processes_go_on_while_nobody_asks(tmp_path: Path) -> None:
    """Whoever takes the documents has something to do for each."""
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(name)
    reader = ReaderPool(workers=1, limits=DEFAULT_LIMITS, read=tell)
    documents = reader.read_all(inspect_all(tmp_path).values())
    next(documents)
    wait_for((tmp_path / "2.begun").exists, "the second file to be read")
    documents.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_few_documents_are_held(tmp_path: Path, workers: int) -> None:
    """However slowly they are taken."""
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("text")
    begun = 0

    def counted(files: Iterable[InspectedFile]) -> Iterator[InspectedFile]:
        nonlocal begun
        for file in files:
            begun += 1
            yield file

    reader = ReaderPool(workers=workers, limits=DEFAULT_LIMITS, read=tell)
    for taken, _ in enumerate(reader.read_all(counted(inspect_all(tmp_path).values()))):
        assert begun - taken <= 2 * workers
        wait_for(lambda: len([*tmp_path.glob("*.begun")]) == begun, "the processes to do what they may")
    assert begun == 20


def test_no_process_is_started_for_nothing(tmp_path: Path) -> None:
    """When nothing has changed, a run is done before one would be."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    before = set(multiprocessing.active_children())
    for document in ReaderPool(workers=2, limits=DEFAULT_LIMITS, read=read_text).read_all(
        inspect_all(tmp_path).values()
    ):
        assert document.status is DocumentStatus.UNREADABLE
        assert set(multiprocessing.active_children()) == before


def test_no_process_is_left(tmp_path: Path) -> None:
    """Neither at the end, nor when nobody wants the rest."""
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


def test_an_unreadable_file_is_told_from_the_rest(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "locked.txt").write_text("locked")
    (tmp_path / "locked.txt").chmod(0)
    if os.access(tmp_path / "locked.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert inspect_all(tmp_path)["locked.txt"].status is DocumentStatus.UNREADABLE
