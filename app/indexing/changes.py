"""The work of a run: the documents' folder, compared with the previous index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from posixpath import splitext

from app.documents.discovery import SourceFile
from app.domain.document import Document, DocumentStatus
from app.storage.contract import ReusedChunks

# Reading the same file again gives the same. Other statuses may come from an accident, or from a limit.
_FINAL = frozenset(
    {
        DocumentStatus.INDEXED,
        DocumentStatus.EMPTY,
        DocumentStatus.NEEDS_OCR,
        DocumentStatus.ENCRYPTED,
        DocumentStatus.UNSUPPORTED,
        DocumentStatus.UNREADABLE,
    }
)


@dataclass(frozen=True)
class Changes:
    """Documents by what became of them, and by what has to be done for them.

    Attributes:
        renamed: old name and new name.
        kept: documents that stay as they are.
        copied: name of a document of the previous index, and a file with the same content.
        to_read: all other files.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[Document] = field(default_factory=list)
    copied: list[tuple[str, SourceFile]] = field(default_factory=list)
    to_read: list[SourceFile] = field(default_factory=list)

    @property
    def reused(self) -> ReusedChunks:
        return ReusedChunks(
            [record.name for record in self.kept], [(name, file.name) for name, file in self.copied]
        )

    def __bool__(self) -> bool:
        """Return whether any document came, went or changed."""
        return bool(self.added or self.changed or self.renamed or self.removed)


def compare(files: Sequence[SourceFile], previous: Sequence[Document], *, reusable: bool) -> Changes:
    """Compare files with the documents of the previous index by content: time stamps say nothing.

    Args:
        reusable: whether the chunks of the previous index are as they would be made again.
    """
    known = {record.name: record for record in previous}
    here = {file.name for file in files}
    gone = [record for record in previous if record.name not in here]
    old_names = {record.sha256: record.name for record in gone if record.sha256}
    twins = {_content(record): record.name for record in previous if record.status is DocumentStatus.INDEXED}
    changes = Changes()
    for file in files:
        record = known.get(file.name)
        if record is not None and _is_same(file, record):
            if reusable and record.sha256 and record.status in _FINAL:
                changes.kept.append(record)
            else:
                changes.to_read.append(file)
            continue
        if record is not None:
            changes.changed.append(file.name)
        elif file.sha256 and (old_name := old_names.pop(file.sha256, None)):
            changes.renamed.append((old_name, file.name))
        else:
            changes.added.append(file.name)
        if reusable and (twin := twins.get(_content(file))):
            changes.copied.append((twin, file))
        else:
            changes.to_read.append(file)
    renamed = {old_name for old_name, _ in changes.renamed}
    changes.removed.extend(record.name for record in gone if record.name not in renamed)
    return changes


def _is_same(file: SourceFile, record: Document) -> bool:
    if file.sha256 is None:
        return record.sha256 is None and record.status is file.status
    return record.sha256 == file.sha256


def _content(document: SourceFile | Document) -> tuple[str | None, str]:
    """Return all that decides about a document's chunks: its bytes, and its ending, by which it is read."""
    return document.sha256, splitext(document.name)[1].lower()
