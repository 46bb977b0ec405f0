"""Documents and what became of them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class DocumentStatus(StrEnum):
    """What became of a document; all but `indexed` say why nothing of it can be found."""

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


class DocumentRecord(BaseModel):
    """A document of an index: a line of `documents.jsonl`, an element of `GET /documents`."""

    name: str = Field(description="The path below the documents' folder")
    sha256: str | None = Field(description="Of the file's content; null where it could not be read")
    size: int = Field(description="Bytes")
    pages: int | None = Field(description="Null where the format has none")
    chunks: int
    status: DocumentStatus
    problem: str | None = Field(description="Null where the document is indexed")
