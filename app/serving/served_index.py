"""A loaded snapshot, ready to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.domain.index import IndexInfo
from app.query.engine import RagQueryEngine
from app.storage.manifest import Manifest


class StoredIndex(Protocol):
    """An index as it is kept, on disk or in a database."""

    @property
    def manifest(self) -> Manifest: ...

    def documents_json(self) -> bytes:
        """A JSON array of `DocumentRecord`."""
        ...


@dataclass(frozen=True)
class ServedIndex:
    """A request takes it once and keeps it to its end.

    Attributes:
        close: to be called when nobody holds the engine any more; takes the engine's files out of memory.
    """

    stored: StoredIndex
    engine: RagQueryEngine
    close: Callable[[], None]

    @property
    def id(self) -> str:
        return self.stored.manifest.id

    @property
    def info(self) -> IndexInfo:
        manifest = self.stored.manifest
        return IndexInfo(
            id=manifest.id,
            documents=manifest.documents,
            chunks=manifest.chunks,
            built_at=manifest.built_at,
            embedding_model=manifest.embedding.model,
        )

    async def documents_json(self) -> bytes:
        """A JSON array of `DocumentRecord`.

        Read in a thread when asked for: they are not needed to answer, so loading does not wait for them.
        """
        return await asyncio.to_thread(self.stored.documents_json)
