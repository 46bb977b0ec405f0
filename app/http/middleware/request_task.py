"""The task of a request."""

from __future__ import annotations

import asyncio
from typing import Any


def current_task() -> asyncio.Task[Any]:
    """That of the request, which it ends with."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    return task
