"""The deadline of a request, available to everything that waits.

It is kept in a context variable, because it has to pass through LlamaIndex's signatures: an embedding is
given a text and nothing else. Each request runs in a task of its own, and its deadline ends with that.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def start_deadline(seconds: float) -> None:
    """Set the deadline of the current task, and of those that it starts from now on."""
    _deadline.set(asyncio.get_running_loop().time() + seconds)


def remaining_s() -> float:
    """Return the seconds until the deadline: at least 0, and infinite if none was set."""
    return max(0.0, _deadline.get() - asyncio.get_running_loop().time())


def until_deadline(at_most_s: float = math.inf) -> asyncio.Timeout:
    """Make a context manager that raises TimeoutError at the deadline, or after `at_most_s`."""
    limit = min(remaining_s(), at_most_s)
    return asyncio.timeout(None if math.isinf(limit) else limit)
