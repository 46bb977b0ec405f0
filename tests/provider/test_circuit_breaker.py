"""The circuit breaker, with its time under control."""

from __future__ import annotations

import pytest

from app.provider.circuit_breaker import COOL_DOWN_S, FAILURES, CircuitBreaker, CircuitOpen


class Clock:
    """A clock that shows what a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(tested: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with tested.call():
            tested.failed()


def is_open(tested: CircuitBreaker) -> bool:
    try:
        with tested.call():
            return False
    except CircuitOpen:
        return True


@pytest.fixture
def cooled(clock: Clock) -> CircuitBreaker:
    """A breaker that is open, and whose next call is a probe."""
    tested = CircuitBreaker(clock=clock)
    fail(tested, FAILURES)
    clock.now += COOL_DOWN_S
    return tested


def test_it_opens_after_failures_in_a_row() -> None:
    """The circuit opens after consecutive failures; a success in between starts the count again."""
    tested = CircuitBreaker()
    fail(tested, FAILURES - 1)
    with tested.call():
        tested.succeeded()
    fail(tested, FAILURES - 1)
    assert not is_open(tested)
    fail(tested)
    assert is_open(tested)


def test_it_stays_open_until_the_end_of_the_cool_down(clock: Clock) -> None:
    """The cool-down begins at the last failure."""
    tested = CircuitBreaker(cool_down_s=7, clock=clock)
    fail(tested, FAILURES)
    clock.now += 6.9
    assert is_open(tested)
    clock.now += 0.2
    assert not is_open(tested)


def test_one_probe_is_let_through_at_a_time(cooled: CircuitBreaker) -> None:
    """After the cool-down, a second call during a probe is rejected."""
    with cooled.call():
        assert is_open(cooled)
    assert not is_open(cooled)


def test_a_successful_probe_closes_the_circuit(cooled: CircuitBreaker) -> None:
    """After a successful probe, calls may run concurrently again."""
    with cooled.call():
        cooled.succeeded()
    with cooled.call(), cooled.call():
        pass


def test_a_failed_probe_keeps_the_circuit_open(cooled: CircuitBreaker) -> None:
    """A failed probe starts another cool-down."""
    fail(cooled)
    assert is_open(cooled)


def test_a_cancelled_probe_changes_nothing(cooled: CircuitBreaker) -> None:
    """If the client of a probe disconnects, the next call is the probe."""
    with pytest.raises(KeyboardInterrupt), cooled.call():
        raise KeyboardInterrupt
    with cooled.call():
        assert is_open(cooled)


def test_a_call_that_began_before_the_circuit_opened_does_not_end_a_probe() -> None:
    """The end of an older call lets no second probe through."""
    tested = CircuitBreaker(cool_down_s=0)
    early = tested.call()
    early.__enter__()
    fail(tested, FAILURES)
    with tested.call():
        early.__exit__(None, None, None)
        assert is_open(tested)


def test_a_call_that_began_before_the_circuit_opened_does_not_postpone_the_probe(
    cooled: CircuitBreaker,
) -> None:
    """Calls that hang may fail one after the other, until their deadlines."""
    cooled.failed()
    assert not is_open(cooled)
