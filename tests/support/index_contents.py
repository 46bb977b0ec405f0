"""The contents of an index directory as a server sees them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_index_manager
from app.config.settings import Settings
from app.domain.query import Query
from tests.support.timing import PATIENT

QUESTION = "How many weeks does parental leave last?"
_ALL = 50


@dataclass(frozen=True)
class Contents:
    """All documents and chunks of an index, and its answer to `QUESTION`.

    Attributes:
        documents: name, hash and status of each.
        chunks: id, document, heading and text of each.
    """

    documents: frozenset[tuple[str, str | None, str]]
    chunks: frozenset[tuple[str, str, str | None, str]]
    answer: str


def read_index(settings: Settings) -> tuple[str, Contents]:
    """Load the index in the way of a server, and return its id and contents.

    Raises:
        AssertionError: it is not served, or /health reports a problem.
    """
    return asyncio.run(_read_index(settings))


async def _read_index(settings: Settings) -> tuple[str, Contents]:
    provider = make_provider(settings)
    manager = make_index_manager(settings, provider, timing=PATIENT)
    await manager.start()
    health = manager.health()
    assert (health.index_ready, health.detail) == (True, None), health
    served = manager.current
    answer = await served.engine.answer(Query(QUESTION))
    found = await served.engine.search(Query(QUESTION, top_k=_ALL))
    documents = list(served.stored.documents())
    manager.stop()
    served.close()
    await provider.close()
    assert len(found.passages) == served.info.chunks < _ALL
    contents = Contents(
        frozenset((each.name, each.sha256, each.status.value) for each in documents),
        frozenset((each.chunk_id, each.document, each.heading, each.text) for each in found.passages),
        answer.completed.text,
    )
    return served.info.id, contents
