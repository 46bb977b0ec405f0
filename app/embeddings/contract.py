"""Embedding the texts of a whole corpus, batch by batch, some of them at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from app.domain.vectors import Vectors

Submit = Callable[[list[str]], Future[Vectors]]


class BatchEmbedding(Protocol):
    """An embedding, as far as texts are embedded for an index.

    LlamaIndex's contract has lists of Python floats, which take eight times the memory, and one batch at a
    time.
    """

    def session(self) -> AbstractContextManager[Submit]:
        """One run over many batches; one session at a time.

        A future gives the vectors in the order of its texts. However many are open, all are asked for at
        once: the caller decides how many that are. Leaving cancels those that are not done.

        Raises:
            EmbeddingChanged: by a future. Nothing that was embedded before can be trusted either.
            IndexingError: by a future: the batch failed, for good.
        """
        ...
