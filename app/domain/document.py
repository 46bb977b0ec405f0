"""Documents and what became of them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class DocumentStatus(StrEnum):
    """The outcome of reading a document; all but `indexed` say why nothing of it can be found."""

    INDEXED = "indexed"
    EMPTY = "empty"
    NEEDS_OCR = "needs_ocr"
    ENCRYPTED = "encrypted"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    OUTSIDE = "outside"


class Document(NamedTuple):
    """A document of an index, also one that could not be read.

    Attributes:
        name: path below the documents' folder, with forward slashes.
        sha256: hash of the file's content; None where it could not be read.
        size: in bytes.
        pages: None where the format has none.
        chunks: how many the index has of it.
        problem: why it is not indexed; None where it is.
    """

    name: str
    sha256: str | None
    size: int
    pages: int | None
    chunks: int
    status: DocumentStatus
    problem: str | None
