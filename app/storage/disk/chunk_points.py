"""Lookup of chunks by document and by text: a reindex asks for it, and no search does."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_DOCUMENT, _TEXT, _POINT = range(3)
_COLUMNS = 3


class ChunkPoints:
    """The engine's ids of chunks by document and by text: 24 bytes a chunk.

    Payload indexes of the engine would do the same for 0.7 kB a chunk while an index is built, and each of
    them takes 3 ms to load, in which the engine lets no other thread run.
    """

    def __init__(self, rows: npt.NDArray[np.uint64] | None = None) -> None:
        # Shape (chunks, 3): see the columns above.
        self._rows = np.empty((0, _COLUMNS), dtype=np.uint64) if rows is None else rows
        self._added = array("Q")
        # By column: its values, sorted, and their points.
        self._sorted: dict[int, tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]] = {}

    @classmethod
    def load(cls, path: Path) -> ChunkPoints:
        return cls(np.load(path, allow_pickle=False))

    def save(self, path: Path) -> None:
        np.save(path, self._merged(), allow_pickle=False)

    def add(self, document: str | None, text_hash: str, point: int) -> None:
        """Add a chunk that it does not have."""
        self._added.extend((number_of(document or ""), number_of(text_hash), point))

    def remove(self, points: Sequence[int]) -> None:
        rows = self._merged()
        self._rows = rows[~np.isin(rows[:, _POINT], np.array(points, dtype=np.uint64))]
        self._sorted.clear()

    def of_documents(self, names: Iterable[str]) -> list[int]:
        return self._points(_DOCUMENT, names)

    def of_texts(self, text_hashes: Iterable[str]) -> list[int]:
        return self._points(_TEXT, text_hashes)

    def _points(self, column: int, keys: Iterable[str]) -> list[int]:
        rows = self._merged()
        if column not in self._sorted:
            order = np.argsort(rows[:, column])
            self._sorted[column] = rows[order, column], rows[order, _POINT]
        values, points = self._sorted[column]
        wanted = np.array(sorted({number_of(key) for key in keys}), dtype=np.uint64)
        places = np.searchsorted(values, wanted).tolist()
        ends = np.searchsorted(values, wanted, side="right").tolist()
        found: list[int] = []
        for place, end in zip(places, ends, strict=True):
            found += points[place:end].tolist()
        return found

    def _merged(self) -> npt.NDArray[np.uint64]:
        if self._added:
            added = np.frombuffer(self._added, dtype=np.uint64).reshape(-1, _COLUMNS)
            self._rows = np.concatenate([self._rows, added])
            self._added = array("Q")
            self._sorted.clear()
        return self._rows


def number_of(text: str) -> int:
    """Return 64 bits of a text's hash: the engine's ids are numbers or UUIDs, LlamaIndex's any text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
