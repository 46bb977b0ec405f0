"""Start and stop of the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.config.settings import Settings
from app.http.rate_limiter import RateLimiter
from app.main import create_app
from app.provider.client import ProviderClient
from app.serving.index_manager import IndexManager

OPENED = ["IndexManager", "ProviderClient", "RateLimiter"]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that have been closed, in their order."""
    names: list[str] = []

    def noting(part: type[Any]) -> Callable[[Any], Any]:
        close = part.close

        async def close_and_note(self: Any) -> None:
            names.append(part.__name__)
            await close(self)

        return close_and_note

    for part in (IndexManager, ProviderClient, RateLimiter):
        monkeypatch.setattr(part, "close", noting(part))
    return names


async def start_and_stop(settings: Settings, during: Callable[[], None] = lambda: None) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        during()


def test_parts_are_closed_in_reverse_order(settings: Callable[..., Settings], closed: list[str]) -> None:
    asyncio.run(start_and_stop(settings(rate_limit="5/minute")))
    assert closed == OPENED


def test_parts_are_closed_when_a_later_one_fails_to_start(
    settings: Callable[..., Settings], closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: IndexManager) -> None:
        raise OSError("a step that fails")

    monkeypatch.setattr(IndexManager, "start", fail)
    with pytest.raises(OSError, match="a step that fails"):
        asyncio.run(start_and_stop(settings(rate_limit="5/minute")))
    assert closed == OPENED


def test_parts_are_closed_when_the_server_fails(settings: Callable[..., Settings], closed: list[str]) -> None:
    def fail() -> None:
        raise OSError("the server's")

    with pytest.raises(OSError, match="the server's"):
        asyncio.run(start_and_stop(settings(rate_limit="5/minute"), fail))
    assert closed == OPENED
