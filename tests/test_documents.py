"""The folder, and reading it with processes that may hang or crash."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.documents import Document, Reader, walk
from app.errors import NoDocuments
from app.pages import Page
from app.schemas import DocumentStatus


def read_all(folder: Path, **options: float) -> dict[str, Document]:
    reader = Reader(folder, workers=1, timeout_s=options.get("timeout_s", 60))
    return {document.name: document for document in reader.read_all(walk(folder))}


def hang_or_crash(path: Path) -> list[Page]:
    """Stands in for a parser: what the file's name says happens."""
    if "hang" in path.name:
        time.sleep(600)
    if "crash" in path.name:
        os.abort()
    if "raise" in path.name:
        raise RuntimeError("inside the parser")
    return [Page(None, path.read_text())]


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

    assert documents["good.txt"].status is DocumentStatus.INDEXED
    assert documents["bad.txt"].status is DocumentStatus.OUTSIDE
    assert documents["gone.txt"].status is DocumentStatus.UNREADABLE
    assert documents["loop.txt"].status is DocumentStatus.UNREADABLE
    assert documents["folder"].status is DocumentStatus.OUTSIDE
    assert not any("secret" in page.text for document in documents.values() for page in document.pages)


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
    documents = read_all(tmp_path)
    assert {document.problem for document in documents.values()} == {"it is not a regular file"}
    assert len(documents) == 2


def test_control_characters_in_a_name_are_shown_escaped(tmp_path: Path) -> None:
    """Raw, they would forge lines of a log."""
    (tmp_path / "a\n2026 ERROR forged\x1b[31m.txt").write_text("text")
    (name,) = read_all(tmp_path)
    assert name == "a\\n2026 ERROR forged\\x1b[31m.txt"


def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """Its documents would vanish from the index without a word."""
    (tmp_path / "secret").mkdir(mode=0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be opened" in (read_all(tmp_path)["secret"].problem or "")


def test_a_missing_folder_says_which_setting(tmp_path: Path) -> None:
    with pytest.raises(NoDocuments, match="DOCUMENTS_DIR"):
        walk(tmp_path / "missing")


def test_one_bad_file_costs_only_itself(tmp_path: Path) -> None:
    """A parser that hangs is killed, one that crashes is replaced; the rest is read, in order."""
    names = ["1.txt", "2-hang.txt", "3.txt", "4-crash.txt", "5.txt", "6-raise.txt", "7.txt"]
    for name in names:
        (tmp_path / name).write_text(name)
    reader = Reader(tmp_path, workers=2, timeout_s=3, read=hang_or_crash)

    documents = list(reader.read_all(walk(tmp_path)))

    assert [document.name for document in documents] == names
    assert [document.status for document in documents] == [
        DocumentStatus.INDEXED,
        DocumentStatus.TIMED_OUT,
        DocumentStatus.INDEXED,
        DocumentStatus.CRASHED,
        DocumentStatus.INDEXED,
        DocumentStatus.UNREADABLE,
        DocumentStatus.INDEXED,
    ]
    assert "PARSE_TIMEOUT_S" in (documents[1].problem or "")


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("same")
    one, other = read_all(tmp_path).values()
    assert one.sha256 == other.sha256
    assert one.size == 4


def test_an_unreadable_file_is_told_from_the_rest(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "locked.txt").write_text("locked")
    (tmp_path / "locked.txt").chmod(0)
    if os.access(tmp_path / "locked.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert read_all(tmp_path)["locked.txt"].status is DocumentStatus.UNREADABLE
