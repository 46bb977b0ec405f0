"""The time by which a request must be answered, known wherever something is waited for.

A context variable, because it has to get through LlamaIndex's signatures: an embedding is given a text and
nothing else. Each request is a task of its own, with which it ends.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def start_deadline(seconds: float) -> None:
    """For all that this task does from now on."""
    _deadline.set(asyncio.get_running_loop().time() + seconds)


def remaining_s() -> float:
    """Seconds, not below 0; infinite where no deadline was set."""
    return max(0.0, _deadline.get() - asyncio.get_running_loop().time())


def until_deadline(at_most_s: float = math.inf) -> asyncio.Timeout:
    """A context that raises TimeoutError when the time is up, or after `at_most_s`."""
    limit = min(remaining_s(), at_most_s)
    return asyncio.timeout(None if math.isinf(limit) else limit)
