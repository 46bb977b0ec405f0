"""A chunk of a document."""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from typing import NamedTuple

_CHUNK_NAMESPACE = uuid.UUID("6f1c1f0e-1d1b-5c0a-9b57-3c1b6f2d7a10")


class Chunk(NamedTuple):
    """A part of a document's text.

    Attributes:
        start: where in its page's text it stands; `end`, too.
        text_hash: of `embed_text`.
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
        """What is embedded and searched. Not the document's name: renaming one embeds nothing again."""
        return embed_text(self.heading, self.text)


def embed_text(heading: str | None, text: str) -> str:
    """Return what is embedded and searched of a text below a heading path."""
    return f"{heading}\n{text}" if heading else text


def text_hash(text: str) -> str:
    """32 hexadecimal digits: equal for texts that have the same embedding."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def chunk_id(document: str, text_hash: str, occurrence: int) -> str:
    """The same for the same text in the same document, wherever it stands there."""
    return str(uuid.uuid5(_CHUNK_NAMESPACE, f"{document}\0{text_hash}\0{occurrence}"))


class ChunkUnit(StrEnum):
    CHARACTERS = "characters"
    TOKENS = "tokens"
