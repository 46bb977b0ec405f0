"""Which documents changed: by content, whatever their names and times say."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.documents.discovery import SourceFile
from app.domain.document import Document, DocumentStatus
from app.indexing.changes import Changes, compare


def record(
    name: str, content: str | None = "content", status: DocumentStatus = DocumentStatus.INDEXED
) -> Document:
    return Document(name=name, sha256=content, size=1, pages=None, chunks=1, status=status, problem=None)


def file(name: str, content: str | None = "content") -> SourceFile:
    return SourceFile(name, Path(name), content, 1)


def compared(files: list[SourceFile], before: list[Document], *, reusable: bool = True) -> Changes:
    return compare(files, before, reusable=reusable)


def names_to_read(changes: Changes) -> list[str]:
    return [each.name for each in changes.to_read]


def test_unchanged_documents_are_kept() -> None:
    changes = compared([file("a.md")], [record("a.md")])
    assert not changes
    assert changes.kept == [record("a.md")]
    assert changes.to_read == []


def test_all_kinds_of_changes_are_told_apart() -> None:
    before = [
        record("same.md", "1"),
        record("changed.md", "2"),
        record("old.md", "3"),
        record("gone.md", "4"),
    ]
    now = [file("same.md", "1"), file("changed.md", "2b"), file("new.md", "3"), file("added.md", "5")]
    changes = compared(now, before)
    assert (changes.added, changes.changed) == (["added.md"], ["changed.md"])
    assert (changes.renamed, changes.removed) == ([("old.md", "new.md")], ["gone.md"])
    assert [each.name for each in changes.kept] == ["same.md"]
    assert [(old, each.name) for old, each in changes.copied] == [("old.md", "new.md")]
    assert names_to_read(changes) == ["changed.md", "added.md"]


def test_a_copy_is_added_but_not_read() -> None:
    changes = compared([file("a.md"), file("b.md")], [record("a.md")])
    assert changes.added == ["b.md"]
    assert [(old, each.name) for old, each in changes.copied] == [("a.md", "b.md")]


def test_two_documents_may_swap_their_contents() -> None:
    """Each has the content that the other one had."""
    changes = compared([file("a.md", "2"), file("b.md", "1")], [record("a.md", "1"), record("b.md", "2")])
    assert changes.changed == ["a.md", "b.md"]
    assert [(old, each.name) for old, each in changes.copied] == [("b.md", "a.md"), ("a.md", "b.md")]


def test_one_of_two_equal_documents_is_renamed() -> None:
    changes = compared([file("a.md"), file("c.md")], [record("a.md"), record("b.md")])
    assert changes.renamed == [("b.md", "c.md")]
    assert not changes.removed


def test_another_file_extension_causes_another_reading() -> None:
    """The content is the same, but its chunks may differ."""
    changes = compared([file("a.txt")], [record("a.md")])
    assert changes.renamed == [("a.md", "a.txt")]
    assert names_to_read(changes) == ["a.txt"]


def test_other_chunk_settings_read_all_documents_again() -> None:
    """Changes of documents are still detected."""
    changes = compared(
        [file("a.md"), file("c.md", "3")], [record("a.md"), record("b.md", "3")], reusable=False
    )
    assert changes.renamed == [("b.md", "c.md")]
    assert names_to_read(changes) == ["a.md", "c.md"]
    assert (changes.kept, changes.copied) == ([], [])


@pytest.mark.parametrize("status", list(DocumentStatus))
def test_failures_that_may_be_temporary_are_tried_again(status: DocumentStatus) -> None:
    """A limit may have been raised, or the machine less busy. Failures due to the file itself are kept."""
    changes = compared([file("a.pdf")], [record("a.pdf", status=status)])
    accidents = {
        DocumentStatus.TIMED_OUT,
        DocumentStatus.CRASHED,
        DocumentStatus.TOO_LARGE,
        DocumentStatus.OUTSIDE,
    }
    assert names_to_read(changes) == (["a.pdf"] if status in accidents else [])
    assert not changes


def test_an_unreadable_file_is_tried_again_and_is_no_change() -> None:
    unreadable = SourceFile("a.md", Path("a.md"), None, 0, DocumentStatus.UNREADABLE, "no permission")
    changes = compared([unreadable], [record("a.md", None, DocumentStatus.UNREADABLE)])
    assert not changes
    assert names_to_read(changes) == ["a.md"]
