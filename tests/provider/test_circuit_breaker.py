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
    tested = CircuitBreaker()
    fail(tested, FAILURES - 1)
    with tested.call():
        tested.succeeded()
    fail(tested, FAILURES - 1)
    assert not is_open(tested)
    fail(tested)
    assert is_open(tested)


def test_one_probe_is_let_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = opened(monkeypatch, cooled=True)
    with tested.call():
        assert is_open(tested)
    assert not is_open(tested)


def test_a_probe_that_succeeds_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = opened(monkeypatch, cooled=True)
    with tested.call():
        tested.succeeded()
    with tested.call(), tested.call():
        pass


def test_a_probe_that_fails_keeps_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = opened(monkeypatch, cooled=True)
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 1000.0)
    fail(tested)
    assert is_open(tested)


def test_a_probe_that_was_given_up_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client went away: the next one probes."""
    tested = opened(monkeypatch, cooled=True)
    with pytest.raises(KeyboardInterrupt), tested.call():
        raise KeyboardInterrupt
    with tested.call():
        assert is_open(tested)


def test_a_call_from_before_does_not_end_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a second would be let through beside it."""
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 0.0)
    tested = CircuitBreaker()
    early = tested.call()
    early.__enter__()
    fail(tested, FAILURES)
    with tested.call():
        early.__exit__(None, None, None)
        assert is_open(tested)


def test_a_call_from_before_does_not_put_off_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hang fail one after the other, for as long as their deadline."""
    tested = opened(monkeypatch, cooled=True)
    monkeypatch.setattr(breaker, "COOL_DOWN_S", 1000.0)
    tested.failed()
    assert not is_open(tested)
