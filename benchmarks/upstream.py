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
    """The latencies and the length of answers of a provider; times in milliseconds.

    Attributes:
        chat_ms: the time until the whole completion, or until the first token of a streamed one.
        tokens: the number of tokens in an answer.
        token_ms: the time between two streamed tokens; with 0, all are sent at once.
    """

    embedding_ms: float = 0
    chat_ms: float = 0
    tokens: int = 20
    token_ms: float = 0

    def limit(self, users: int) -> float:
        """Return the highest possible queries per second of so many users who each wait for their answers."""
        return users * 1000 / (self.embedding_ms + self.chat_ms)


@contextmanager
def provider(settings: Provider) -> Iterator[Replica]:
    """Run the provider in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.fake_provider", f"--port={port}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in vars(settings).items()]
    with running(command, port=port, ready="/health") as server:
        yield server
