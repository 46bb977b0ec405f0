"""The share of its own chunks that an index must find before it is served."""

from __future__ import annotations

from app.domain.errors import IndexingError

# An approximate search may miss one.
_MUST_BE_FOUND = 0.9


def judge(count: int, chunks: int, *, asked: int, found: int) -> None:
    """Judge an index by its count, and by what it found of its own chunks.

    Args:
        count: of the chunks in the index; `chunks` have to be there.
        asked: how many of its chunks it was asked for; it has found `found` of them.

    Raises:
        IndexingError: it is not good enough.
    """
    if count != chunks:
        raise IndexingError(f"the index has {count} chunks instead of {chunks}: run make reindex")
    if found < _MUST_BE_FOUND * asked:
        raise IndexingError(f"the index finds {found} of {asked} of its own chunks: run make reindex")
