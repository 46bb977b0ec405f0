"""A chunk of a document."""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from typing import NamedTuple

_CHUNK_NAMESPACE = uuid.UUID("6f1c1f0e-1d1b-5c0a-9b57-3c1b6f2d7a10")


class Chunk(NamedTuple):
    """A part of a document's text, as it is cut.

    Attributes:
        page: None where the format has none.
        heading: path of the headings above it; None where there is none.
        start, end: its place in its page's text, in characters.
        text_hash: hash of `embed_text`.
        occurrence: 1 for the first chunk of this heading and text in its document, 2 for the second.
    """

    document: str
    page: int | None
    heading: str | None
    text: str
    start: int
    end: int
    text_hash: str
    occurrence: int

    @property
    def id(self) -> str:
        return chunk_id(self.document, self.text_hash, self.occurrence)

    @property
    def embed_text(self) -> str:
        """The text that is embedded and searched: without the document's name, so renaming embeds nothing."""
        return embed_text(self.heading, self.text)


def embed_text(heading: str | None, text: str) -> str:
    """Return what is embedded and searched of a text below a heading path."""
    return f"{heading}\n{text}" if heading else text


def text_hash(text: str) -> str:
    """Return 32 hexadecimal digits, equal for texts that have the same embedding."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def chunk_id(document: str, text_hash: str, occurrence: int) -> str:
    """Return an id that is the same for the same text in the same document, wherever it stands there."""
    return str(uuid.uuid5(_CHUNK_NAMESPACE, f"{document}\0{text_hash}\0{occurrence}"))


class ChunkUnit(StrEnum):
    """The unit in which the size of chunks is given."""

    CHARACTERS = "characters"
    TOKENS = "tokens"
