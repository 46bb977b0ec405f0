"""The pauses between retries, without waiting for them."""

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
    """Collect the pauses between attempts that fail at once."""

    async def collect() -> list[float]:
        retries = Retries(retry_policy)
        found: list[float] = []
        try:
            while len(found) < at_most:
                found.append(retries.pause_after(make_failure()))
        except ProviderFailure:
            pass
        return found

    return asyncio.run(collect())


def test_a_request_is_retried_twice_and_a_malformed_answer_not_at_all() -> None:
    """A client is waiting."""
    assert len(pauses(ONLINE, failure)) == 2
    assert pauses(ONLINE, lambda: failure(is_transient=False)) == []


def test_a_request_honours_a_retry_after_of_zero() -> None:
    """The client need not wait if the provider asks for no pause."""
    assert pauses(ONLINE, lambda: failure(retry_after_s=0)) == [0, 0]


def test_pauses_double_up_to_half_a_minute() -> None:
    """Each is between half and all of that, so that batches do not retry in step."""
    found = pauses(OFFLINE, failure)
    assert len(found) == 100
    for number, pause in enumerate(found):
        longest = min(30, 0.25 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(found[50:])) > 1


def test_thousands_of_retries_do_not_overflow() -> None:
    """The pause stays at its limit."""
    retry_policy = offline(attempt_s=60, retry_s=10**9)
    assert pauses(retry_policy, failure, at_most=3000)[-1] <= 30


def test_a_retry_after_may_exceed_the_longest_pause() -> None:
    """The limit of our own pauses does not apply to it."""
    assert pauses(OFFLINE, lambda: failure(retry_after_s=90), at_most=3) == [90, 90, 90]


def test_an_indexing_run_pauses_despite_a_retry_after_of_zero() -> None:
    """A failing provider is not called again at once, all the time."""
    found = pauses(OFFLINE, lambda: failure(retry_after_s=0))
    assert all(pause >= 0.5 for pause in found[2:])
    assert max(found) <= 1


@pytest.mark.parametrize("status", [None, 400])
def test_an_outage_does_not_use_up_the_retries_of_malformed_answers(status: int | None) -> None:
    """The retries are counted separately, and a rejection has none."""

    async def count() -> int:
        retries = Retries(OFFLINE)
        for _ in range(20):
            retries.pause_after(failure())
        try:
            while True:
                retries.pause_after(failure(is_transient=False, status=status))
        except ProviderFailure:
            return retries.count

    assert asyncio.run(count()) == (24 if status is None else 20)
