"""A circuit breaker: while the provider is down, calls fail at once instead of waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAILURES = 5
COOL_DOWN_S = 5.0


class CircuitOpen(Exception):
    """The call was not made."""


class CircuitBreaker:
    """Opens after so many failed calls in a row; after `COOL_DOWN_S` one call is let through as a probe.

    Libraries for this let any number of probes through, or take a call whose client went away for a failed
    one. For one event loop.

    Args:
        tell: called with whether it is open, whenever that changes.
    """

    def __init__(
        self, breaker_threshold: float = FAILURES, tell: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._breaks_after = breaker_threshold
        self._tell = tell
        self._failures = 0
        self._probe_at: float | None = None
        self._probing = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call, whose end `succeeded` or `failed` tells; neither, if it was given up.

        Raises:
            CircuitOpen: the provider is taken to be down, and it is not time, or not our turn, to probe.
        """
        probe = self._probe_at is not None
        if probe and (self._probing or not self._is_time()):
            raise CircuitOpen
        self._probing = self._probing or probe
        try:
            yield
        finally:
            self._probing = self._probing and not probe

    def succeeded(self) -> None:
        if self._probe_at is not None:
            self._tell(False)
        self._failures, self._probe_at = 0, None

    def failed(self) -> None:
        self._failures += 1
        # A call from before it opened does not put off the next probe.
        if self._failures >= self._breaks_after and (self._probe_at is None or self._probing):
            if self._probe_at is None:
                self._tell(True)
            self._probe_at = time.monotonic() + COOL_DOWN_S

    def _is_time(self) -> bool:
        return self._probe_at is not None and time.monotonic() >= self._probe_at
