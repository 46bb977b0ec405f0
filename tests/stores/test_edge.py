"""What is only the embedded store's: its files, and threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from app.embeddings.static import DIMENSIONS
from app.stores.edge import EdgeVectorStore
from tests.support.serving import ROOT
from tests.support.stores import ask, nodes, texts_of


@pytest.fixture
def store(tmp_path: Path) -> EdgeVectorStore:
    made = EdgeVectorStore.create(tmp_path / "store", dimensions=DIMENSIONS, average_length=5)
    made.add(nodes())
    return made


_COUNT_THREADS = """
import sys
from pathlib import Path
from app.stores.edge import EdgeVectorStore
from tests.support.stores import ask

query = ask("leave")
threads = Path("/proc/self/task")
before = len(list(threads.iterdir()))
opened = EdgeVectorStore.open(Path(sys.argv[1]))
opened.find(query)
print(len(list(threads.iterdir())) - before)
"""


def test_opening_changes_no_file_and_many_may_open(store: EdgeVectorStore, tmp_path: Path) -> None:
    """Snapshots are immutable, and each worker opens its own."""
    store.save()
    store.close()
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    opened = [EdgeVectorStore.open(tmp_path / "store") for _ in range(3)]
    assert [texts_of(one, ask("trains"))[0] for one in opened] == ["Trains are booked in second class."] * 3
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == files


def test_a_search_runs_in_the_thread_that_asks(store: EdgeVectorStore, tmp_path: Path) -> None:
    """A pool of the engine's own for each open index would take longer, and 15 threads."""
    store.save()
    store.close()
    # In a process that has no threads of other tests.
    command = [sys.executable, "-c", _COUNT_THREADS, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1


def test_queries_from_many_threads_agree(store: EdgeVectorStore) -> None:
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
