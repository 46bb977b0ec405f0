"""The work of a reader process: a file's chunks, their terms, and with a bundled model their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from app.documents.extraction import read_pages
from app.domain.chunk import Chunk
from app.domain.vectors import Vector
from app.embeddings.static_model import StaticModel
from app.text.bm25 import TermCounter, TermCounts
from app.text.chunking import Chunking, cut
from app.text.tokenizer import StaticTokens


class PreparedChunk(NamedTuple):
    """A chunk on its way from a reader process to the index.

    Attributes:
        tokens: how many are embedded, about: models differ a little.
        vector: None where a provider has to be asked for it.
    """

    chunk: Chunk
    terms: TermCounts
    tokens: int
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that was read and cut.

    Attributes:
        pages: None where the format has none.
    """

    pages: int | None
    chunks: list[PreparedChunk]


_term_counter = cache(TermCounter)
_static_tokens = cache(StaticTokens)
_static_model = cache(StaticModel)


def prepare(path: Path, name: str, chunking: Chunking, *, embed: bool) -> Prepared:
    """Read a file and cut it.

    Args:
        embed: embed the chunks with the bundled model, so that the reader processes share that work.

    Raises:
        UnreadableError: nothing of it can be indexed.
    """
    pages = read_pages(path)
    numbers = [page.number for page in pages if page.number is not None]
    chunks = list(cut(name, pages, chunking))
    texts = [chunk.embed_text for chunk in chunks]
    tokens = [_static_tokens().of(text) for text in texts]
    vectors = _static_model().embed_tokens(tokens) if embed else [None] * len(texts)
    terms = [_term_counter().count(text) for text in texts]
    prepared = map(PreparedChunk, chunks, terms, map(len, tokens), vectors)
    return Prepared(max(numbers) if numbers else None, list(prepared))
