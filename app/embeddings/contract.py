"""The contract for embedding a whole corpus in concurrent batches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from app.domain.vectors import Vectors

Submit = Callable[[list[str]], Future[Vectors]]


class BatchEmbedding(Protocol):
    """An embedding model, as indexing uses it.

    LlamaIndex's contract returns lists of Python floats, which take eight times the memory, and embeds one
    batch at a time.
    """

    def session(self) -> AbstractContextManager[Submit]:
        """Open a run over many batches; one session may be open at a time.

        A future returns the vectors in the order of its texts. Every batch is sent when it is submitted, so
        the caller limits how many are in flight. Leaving the session cancels the futures that are not done.

        Raises:
            EmbeddingChanged: raised by a future; the vectors of earlier batches cannot be trusted either.
            IndexingError: raised by a future; the batch failed permanently.
        """
        ...
