"""The task of a request."""

from __future__ import annotations

import asyncio
from typing import Any


def current_task() -> asyncio.Task[Any]:
    """Return the current task, which is the one that answers the request."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    return task
