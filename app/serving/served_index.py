"""An index that is loaded and ready to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.domain.index import IndexInfo
from app.query.engine import RagQueryEngine
from app.storage.manifest import Manifest


class StoredIndex(Protocol):
    """A stored index, on disk or in a database."""

    @property
    def manifest(self) -> Manifest: ...

    def documents_json(self) -> bytes:
        """Read a JSON array of `DocumentRecord`."""
        ...


@dataclass(frozen=True)
class ServedIndex:
    """A loaded index; a request takes one and keeps it to its end.

    Attributes:
        close: releases the engine's files; to be called when the engine is no longer referenced.
    """

    stored: StoredIndex
    engine: RagQueryEngine
    close: Callable[[], None]

    @property
    def id(self) -> str:
        return self.stored.manifest.id

    @property
    def info(self) -> IndexInfo:
        """The description that `GET /health` shows."""
        manifest = self.stored.manifest
        return IndexInfo(
            id=manifest.id,
            documents=manifest.documents,
            chunks=manifest.chunks,
            built_at=manifest.built_at,
            embedding_model=manifest.embedding.model,
        )

    async def documents_json(self) -> bytes:
        """Read a JSON array of `DocumentRecord` in a thread.

        It is read on demand, because answering does not need it and loading should not wait for it.
        """
        return await asyncio.to_thread(self.stored.documents_json)
