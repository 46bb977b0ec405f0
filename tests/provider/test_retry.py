"""How long a failing provider is asked again: the pauses, without waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.provider.failures import ProviderFailure
from app.provider.retry import ONLINE, Retries, RetryPolicy, offline

OFFLINE = offline(attempt_s=60, retry_s=300)


def failure(
    *, is_transient: bool = True, retry_after_s: float | None = None, status: int | None = None
) -> ProviderFailure:
    return ProviderFailure("failed", is_transient=is_transient, retry_after_s=retry_after_s, status=status)


def pauses(
    retry_policy: RetryPolicy, make_failure: Callable[[], ProviderFailure], at_most: int = 100
) -> list[float]:
    """Those between attempts that fail and take no time."""

    async def collect() -> list[float]:
        retries = Retries(retry_policy, first_backoff_s=0.25)
        found: list[float] = []
        try:
            while len(found) < at_most:
                found.append(retries.pause_after(make_failure()))
        except ProviderFailure:
            pass
        return found

    return asyncio.run(collect())


def test_online_there_are_two_retries_and_none_for_what_makes_no_sense() -> None:
    """Somebody waits."""
    assert len(pauses(ONLINE, failure)) == 2
    assert pauses(ONLINE, lambda: failure(is_transient=False)) == []


def test_online_a_provider_that_wants_no_pause_gets_none() -> None:
    assert pauses(ONLINE, lambda: failure(retry_after_s=0)) == [0, 0]


def test_pauses_double_up_to_half_a_minute() -> None:
    """Each is between a half and all of that, so that batches do not come back all at once."""
    found = pauses(OFFLINE, failure)
    assert len(found) == 100
    for number, pause in enumerate(found):
        longest = min(30, 0.25 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(found[50:])) > 1


def test_a_long_outage_is_no_overflow() -> None:
    retry_policy = offline(attempt_s=60, retry_s=10**9)
    assert pauses(retry_policy, failure, at_most=3000)[-1] <= 30


def test_the_provider_may_ask_for_more_than_we_would_wait() -> None:
    """The limit of our own pauses is not that of its wishes."""
    assert pauses(OFFLINE, lambda: failure(retry_after_s=90), at_most=3) == [90, 90, 90]


def test_a_provider_that_asks_for_no_pause_is_not_hammered() -> None:
    found = pauses(OFFLINE, lambda: failure(retry_after_s=0))
    assert all(pause >= 0.5 for pause in found[2:])
    assert max(found) <= 1


@pytest.mark.parametrize("status", [None, 400])
def test_an_outage_does_not_use_up_the_tries_of_a_senseless_answer(status: int | None) -> None:
    """They are counted apart; a refusal has none."""

    async def count() -> int:
        retries = Retries(OFFLINE, first_backoff_s=0.25)
        for _ in range(20):
            retries.pause_after(failure())
        try:
            while True:
                retries.pause_after(failure(is_transient=False, status=status))
        except ProviderFailure:
            return retries.count

    assert asyncio.run(count()) == (24 if status is None else 20)
