"""The model provider that is behind a measured service: the tests' fake one, as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.processes import Replica, free_port, running

ANSWER_START = "The passages say so [1]"


@dataclass(frozen=True)
class Provider:
    """How the provider answers; times in milliseconds.

    Attributes:
        chat_ms: until the whole completion, or, where it is streamed, until the first token.
        tokens: of an answer.
        token_ms: from one streamed token to the next; all come at once where it is 0.
    """

    embedding_ms: float = 0
    chat_ms: float = 0
    tokens: int = 20
    token_ms: float = 0

    def limit(self, users: int) -> float:
        """Queries a second that so many users get at best, each asking again when answered."""
        return users * 1000 / (self.embedding_ms + self.chat_ms)


@contextmanager
def provider(settings: Provider) -> Iterator[Replica]:
    """Serve the provider from a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.fake_provider", f"--port={port}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in vars(settings).items()]
    with running(command, port=port, ready="/health") as server:
        yield server
