"""The circuit breaker, with its time under control."""

from __future__ import annotations

import pytest

from app.provider import circuit_breaker as breaker
from app.provider.circuit_breaker import FAILURES, CircuitBreaker, CircuitOpen


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


def opened(monkeypatch: pytest.MonkeyPatch, *, cooled: bool) -> CircuitBreaker:
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 0.0 if cooled else 1000.0)
    tested = CircuitBreaker()
    fail(tested, FAILURES)
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


def test_one_probe_is_let_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the cool-down, a second call during a probe is rejected."""
    tested = opened(monkeypatch, cooled=True)
    with tested.call():
        assert is_open(tested)
    assert not is_open(tested)


def test_a_successful_probe_closes_the_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a successful probe, calls may run concurrently again."""
    tested = opened(monkeypatch, cooled=True)
    with tested.call():
        tested.succeeded()
    with tested.call(), tested.call():
        pass


def test_a_failed_probe_keeps_the_circuit_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed probe starts another cool-down."""
    tested = opened(monkeypatch, cooled=True)
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 1000.0)
    fail(tested)
    assert is_open(tested)


def test_a_cancelled_probe_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the client of a probe disconnects, the next call is the probe."""
    tested = opened(monkeypatch, cooled=True)
    with pytest.raises(KeyboardInterrupt), tested.call():
        raise KeyboardInterrupt
    with tested.call():
        assert is_open(tested)


def test_a_call_that_began_before_the_circuit_opened_does_not_end_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of an older call lets no second probe through."""
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 0.0)
    tested = CircuitBreaker()
    early = tested.call()
    early.__enter__()
    fail(tested, FAILURES)
    with tested.call():
        early.__exit__(None, None, None)
        assert is_open(tested)


def test_a_call_that_began_before_the_circuit_opened_does_not_postpone_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls that hang may fail one after the other, until their deadlines."""
    tested = opened(monkeypatch, cooled=True)
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 1000.0)
    tested.failed()
    assert not is_open(tested)
