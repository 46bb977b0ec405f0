"""What is only the embedded store's: its files, and threads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as qdrant

from app.embeddings.static_model import DIMENSIONS
from app.storage.disk.payloads import LABELS
from app.storage.disk.shard import ChunkShard
from app.storage.disk.vector_store import EdgeVectorStore
from tests.support.serving import ROOT
from tests.support.stores import ask, nodes, texts_of, where


@pytest.fixture
def store(tmp_path: Path) -> EdgeVectorStore:
    made = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS, average_length=5)
    made.add(nodes())
    return made


def make_layout_1(folder: Path) -> None:
    """Of a store that was saved there: without labels, and without the file of points."""
    (folder / "points.npy").unlink()
    about = json.loads((folder / "store.json").read_text())
    del about["labeled"]
    (folder / "store.json").write_text(json.dumps(about))
    engine = qdrant.EdgeShard.load(str(folder / "engine"))
    engine.update(qdrant.UpdateOperation.delete_field_index(LABELS))
    engine.update(qdrant.UpdateOperation.delete_payload_by_filter(qdrant.Filter(), [LABELS]))
    engine.flush()
    engine.close()


_COUNT_THREADS = """
import sys
from pathlib import Path
from app.storage.disk.vector_store import EdgeVectorStore
from tests.support.stores import ask

query = ask("leave")
threads = Path("/proc/self/task")
before = len(list(threads.iterdir()))
opened = EdgeVectorStore.open(Path(sys.argv[1]))
opened.find(query)
print(len(list(threads.iterdir())) - before)
"""


def test_opening_a_store_changes_no_file(store: EdgeVectorStore, tmp_path: Path) -> None:
    """It can be opened several times, since each worker does so."""
    store.save()
    store.close()
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    opened = [EdgeVectorStore.open(tmp_path / "store") for _ in range(3)]
    assert [texts_of(one, ask("trains"))[0] for one in opened] == ["Trains are booked in second class."] * 3
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(("field", "value"), [("document", "leave.pdf"), ("page", 2), ("page", 1)])
def test_a_store_of_layout_1_can_be_searched_and_read(
    store: EdgeVectorStore, tmp_path: Path, field: str, value: Any
) -> None:
    """After an update, it is served until the next reindex, which reuses its vectors."""
    store.save()
    wanted = where(field, value)
    expected = texts_of(store, ask("leave", top_k=50, filters=wanted))
    entries = store._shard.entries("leave.pdf")
    store.close()
    make_layout_1(tmp_path / "store")

    shard = ChunkShard.open(tmp_path / "store")
    assert texts_of(EdgeVectorStore(shard), ask("leave", top_k=50, filters=wanted)) == expected
    assert {each.chunk.id for each in shard.entries("leave.pdf")} == {each.chunk.id for each in entries}
    hashes = {each.chunk.text_hash for each in entries}
    assert shard.vectors([*hashes, "no such"]).keys() == hashes


def test_a_search_runs_in_the_calling_thread(store: EdgeVectorStore, tmp_path: Path) -> None:
    """A thread pool for each open index would be slower, and would take 15 threads."""
    store.save()
    store.close()
    # In a process that has no threads of other tests.
    command = [sys.executable, "-c", _COUNT_THREADS, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1


def test_queries_from_many_threads_get_the_same_result(store: EdgeVectorStore) -> None:
    query = ask("How long is parental leave?")
    expected = store.query(query).ids
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.extend(store.query(query).ids for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 400
    assert asyncio.run(store.aquery(query)).ids == expected
