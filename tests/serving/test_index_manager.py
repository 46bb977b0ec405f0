"""The served index: built, loaded, swapped, and reported by /health."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest

from app.bootstrap.indexing import make_indexer
from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_engine_maker, make_index_opener
from app.config.settings import Settings
from app.domain.errors import IndexingError
from app.domain.index import Health
from app.indexing.indexer import Indexer
from app.serving.index_manager import IndexManager
from app.serving.snapshot_loader import SnapshotLoader
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot_store import SnapshotStore
from tests.conftest import build
from tests.fake_provider import FakeProvider, faults
from tests.support.serving import wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How many weeks does parental leave last?"}


def write(settings: Settings, name: str, text: str) -> None:
    (settings.documents.dir / name).parent.mkdir(exist_ok=True)
    (settings.documents.dir / name).write_text(text)


def current_id(settings: Settings) -> str:
    return (settings.index.dir / "CURRENT").read_text().strip()


def test_the_first_index_is_built_at_the_start(settings: MakeSettings, serve: Serve) -> None:
    """A server without an index builds one from the documents."""
    made = settings()
    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    client = serve(made)

    health = client.get("/health").json()
    assert health == {
        "status": "ok",
        "index_ready": True,
        "index": {
            "id": current_id(made),
            "documents": 1,
            "chunks": 1,
            "built_at": health["index"]["built_at"],
            "embedding_model": "wordllama-l2-supercat",
        },
    }
    assert "16 weeks" in client.post("/query", json=QUESTION).json()["answer"]


def test_health_shows_the_progress_of_the_first_build(
    openai_settings: MakeSettings, provider: FakeProvider, serve: Serve
) -> None:
    """Questions get a 503 with Retry-After, and liveness is not affected."""
    go_on = threading.Event()
    provider.embeddings.fault = faults.held(go_on)
    client = serve(openai_settings(), ready=False)

    def building() -> dict[str, Any] | None:
        health = client.get("/health")
        is_read = health.status_code == 503 and "2 of 2 documents read" in health.json()["detail"]
        return health.json() if is_read else None

    try:
        health = wait_for(building, "the build to begin")
        assert health["status"] == "building"
        assert health["index_ready"] is False
        assert client.get("/health/live").json() == {"status": "ok"}
        refused = client.post("/query", json=QUESTION)
        assert refused.status_code == 503
        assert refused.json()["code"] == "index_not_ready"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/documents").status_code == 503
    finally:
        go_on.set()


def test_a_stored_index_is_loaded_without_a_build(settings: MakeSettings, serve: Serve) -> None:
    """The server is ready at once, and does not read the documents."""
    made = settings()
    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    build(made)
    (made.documents.dir / "leave.md").unlink()
    client = serve(made, ready=False)
    assert client.get("/health").json()["index"]["id"] == current_id(made)


def test_a_new_snapshot_is_swapped_in_without_a_restart(settings: MakeSettings, serve: Serve) -> None:
    """Questions during the swap are answered from one of the two indexes."""
    made = settings()
    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    client = serve(made)
    first = client.get("/health").json()["index"]["id"]
    answers: list[tuple[int, str, str]] = []
    done = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as other:
            while not done.is_set():
                response = other.post("/query", json=QUESTION)
                body = response.json()
                answers.append((response.status_code, body.get("index", ""), body.get("answer", "")))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        wait_for(lambda: answers, "an answer from the first index")
        write(made, "leave.md", "Parental leave lasts 20 weeks.")
        build(made)
        second = current_id(made)
        wait_for(lambda: client.get("/health").json()["index"]["id"] == second, "the swap")
        wait_for(lambda: answers[-1][1] == second, "an answer from the new index")
    finally:
        done.set()
        asking.join()
    assert {status for status, _, _ in answers} == {200}
    weeks = {first: "16 weeks", second: "20 weeks"}
    assert {index for _, index, _ in answers} == {first, second}
    assert all(weeks[index] in answer for _, index, answer in answers)


def test_a_server_without_documents_reports_it_and_recovers(settings: MakeSettings, serve: Serve) -> None:
    """It stays up, and needs no restart when there are documents."""
    made = settings()
    client = serve(made, ready=False)

    def failed() -> str | None:
        health = client.get("/health").json()
        return health["detail"] if health["status"] == "failed" else None

    detail = wait_for(failed, "the failure to be told")
    assert "holds no documents" in detail
    assert "make reindex" in detail
    assert client.get("/health/live").status_code == 200

    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    build(made)
    wait_for(lambda: client.get("/health").status_code == 200, "the index to be ready")


def test_a_folder_of_unreadable_documents_is_reported(settings: MakeSettings, serve: Serve) -> None:
    """There is nothing to serve, and /health says why."""
    made = settings()
    write(made, "broken.pdf", "not a PDF")
    client = serve(made, ready=False)
    wait_for(lambda: "broken.pdf" in client.get("/health").json().get("detail", ""), "the failure")
    assert client.get("/health").json()["status"] == "failed"


def test_unreadable_documents_are_listed_and_the_rest_is_served(settings: MakeSettings, serve: Serve) -> None:
    """GET /documents has the reasons."""
    made = settings()
    write(made, "a broken.pdf", "not a PDF")
    write(made, "empty.txt", "")
    write(made, "leave.md", "# Leave\n\nParental leave lasts 16 weeks.\n\n# Other\n\nNothing else.")
    listed = serve(made).get("/documents").json()

    assert set(listed) == {"index", "documents"}
    by_name = {document["name"]: document for document in listed["documents"]}
    assert list(by_name) == ["a broken.pdf", "empty.txt", "leave.md"]
    assert set(by_name["leave.md"]) == {"name", "sha256", "size", "pages", "chunks", "status", "problem"}
    assert (by_name["leave.md"]["status"], by_name["leave.md"]["chunks"]) == ("indexed", 2)
    assert by_name["leave.md"]["problem"] is None
    assert (by_name["a broken.pdf"]["status"], by_name["a broken.pdf"]["chunks"]) == ("unreadable", 0)
    assert "not a valid PDF" in by_name["a broken.pdf"]["problem"]
    assert by_name["empty.txt"]["status"] == "empty"


def test_a_damaged_new_index_does_not_replace_the_served_one(settings: MakeSettings, serve: Serve) -> None:
    """Questions are still answered, and /health reports the damage."""
    made = settings()
    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    client = serve(made)
    first = client.get("/health").json()["index"]["id"]
    (made.index.dir / "CURRENT").write_text("20991231T000000Z-abcdef\n")

    wait_for(lambda: "detail" in client.get("/health").json(), "the problem to be told")
    health = client.get("/health")
    assert (health.status_code, health.json()["index"]["id"]) == (200, first)
    assert client.post("/query", json=QUESTION).json()["index"] == first

    (made.index.dir / "CURRENT").write_text(f"{first}\n")
    wait_for(lambda: "detail" not in client.get("/health").json(), "the problem to be forgotten")


class FailsFirst:
    """An indexer whose first build fails, as if its provider were down."""

    def __init__(self, settings: Settings) -> None:
        self.builds = 0
        self._indexer = make_indexer(settings)

    def build(self, *arguments: Any) -> Any:
        self.builds += 1
        if self.builds == 1:
            raise IndexingError("embedding failed: the provider is down")
        return self._indexer.build(*arguments)


class CountedStore(SnapshotStore):
    looks = 0

    def candidates(self) -> list[str]:
        self.looks += 1
        return super().candidates()


@pytest.mark.parametrize("retry_s", [0.1, 1000.0])
def test_a_failed_first_build_is_retried_after_a_pause(settings: MakeSettings, retry_s: float) -> None:
    """It is not retried at each poll, which could cost money; /health has the reason."""
    made = settings()
    write(made, "leave.md", "Parental leave lasts 16 weeks.")
    indexer, store = FailsFirst(made), CountedStore(made.index.dir, keep=1)
    provider = make_provider(made)
    manager = IndexManager(
        loader=SnapshotLoader(
            store, make_index_opener(make_engine_maker(made, provider), Scratch()), Scratch()
        ),
        indexer=cast(Indexer, indexer),
        poll_s=0.01,
        build_retry_s=retry_s,
    )

    async def watch() -> Health:
        running = asyncio.create_task(manager.run())
        async with asyncio.timeout(60):
            while not (manager.health().index_ready or (retry_s == 1000 and store.looks > 20)):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        health = manager.health()
        manager.stop()
        await running
        await provider.close()
        return health

    health = asyncio.run(watch())
    if retry_s == 1000:
        assert (indexer.builds, health.status) == (1, "failed")
        assert health.detail == "embedding failed: the provider is down"
    else:
        assert (indexer.builds, health.status, health.detail) == (2, "ok", None)
    asyncio.run(manager.close())
