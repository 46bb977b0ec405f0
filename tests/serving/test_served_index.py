"""The list of the documents of a served index."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import cast

import pytest

from app.domain.document import Document, DocumentStatus
from app.query.engine import RagQueryEngine
from app.serving.served_index import ServedIndex, StoredIndex
from app.storage.disk.snapshot_store import SnapshotStore
from tests.support.made_snapshots import RECORD, publish


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedIndex:
    store = SnapshotStore(tmp_path_factory.mktemp("index"), keep=1)
    return served_from(store.open(publish(store)))


def served_from(stored: StoredIndex) -> ServedIndex:
    """One whose engine is never asked."""
    return ServedIndex(stored, cast(RagQueryEngine, None), close=lambda: None)


def test_the_list_is_made_once_and_in_a_thread(served: ServedIndex) -> None:
    """However many ask for it at once: 100,000 documents take longer than the event loop may wait."""
    threads: list[int] = []

    def encode(index_id: str, documents: Iterable[Document]) -> bytes:
        threads.append(threading.get_ident())
        assert (index_id, list(documents)) == (served.id, [RECORD])
        return b"encoded"

    async def ask() -> list[bytes]:
        return await asyncio.gather(*(served.listing(encode) for _ in range(5)))

    assert asyncio.run(ask()) + asyncio.run(ask()) == [b"encoded"] * 10
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_a_failure_is_not_kept(served: ServedIndex) -> None:
    """What was in the way may be gone the next time."""

    def fail(_: str, __: Iterable[Document]) -> bytes:
        raise OSError("too many open files")

    def encode(_: str, documents: Iterable[Document]) -> bytes:
        return b"%d" % sum(document.status is DocumentStatus.INDEXED for document in documents)

    with pytest.raises(OSError, match="too many"):
        asyncio.run(served.listing(fail))
    assert asyncio.run(served.listing(encode)) == b"1"
