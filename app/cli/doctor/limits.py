"""Check the storage of the rate limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from app.bootstrap.access import make_rate_limits
from app.cli.doctor.finding import Finding, fail, ok
from app.config.choices import WhenDown
from app.config.settings import Settings
from app.http.rate_limiter import RateLimiter


def check_rate_limits(settings: Settings) -> Iterator[Finding]:
    """Check that the storage answers, unless it is this process's memory."""
    limits = make_rate_limits(settings)
    if limits is None or settings.access.rate_limit_storage.get_secret_value().startswith("memory:"):
        return
    if asyncio.run(_answers(limits)):
        yield ok("limits", "RATE_LIMIT_STORAGE answers")
    else:
        refuses = settings.access.rate_limit_when_down is WhenDown.REFUSE
        fate = "every question is refused" if refuses else "nobody is limited"
        yield fail(
            "limits", f"RATE_LIMIT_STORAGE does not answer, and {fate}", "start it, or correct its address"
        )


async def _answers(limits: RateLimiter) -> bool:
    try:
        return await limits.storage_answers()
    finally:
        await limits.close()
