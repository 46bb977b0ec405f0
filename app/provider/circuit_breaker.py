"""A circuit breaker: while the provider is down, calls fail at once instead of waiting for a timeout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAILURES = 5
COOL_DOWN_S = 5.0


class CircuitOpen(Exception):
    """The circuit is open, so the call was not made."""


class CircuitBreaker:
    """A breaker that opens after consecutive failures and lets one probe through after the cool-down.

    The libraries that do this let any number of probes through, or count a call as failed when its client
    disconnected. An instance belongs to one event loop.

    Args:
        tell: called with True when the circuit opens and with False when it closes.
        cool_down_s: the time from the failure that opened the circuit, or from a failed probe, to the next
            probe.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        breaker_threshold: float = FAILURES,
        tell: Callable[[bool], None] = lambda _: None,
        *,
        cool_down_s: float = COOL_DOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._breaks_after = breaker_threshold
        self._tell = tell
        self._cool_down_s = cool_down_s
        self._clock = clock
        self._failures = 0
        self._probe_at: float | None = None
        self._probing = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Guard one call, which reports its result with `succeeded` or `failed`, or neither if cancelled.

        Raises:
            CircuitOpen: the circuit is open, and it is too early to probe or another call is the probe.
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
        # A call that began before the circuit opened does not postpone the next probe.
        if self._failures >= self._breaks_after and (self._probe_at is None or self._probing):
            if self._probe_at is None:
                self._tell(True)
            self._probe_at = self._clock() + self._cool_down_s

    def _is_time(self) -> bool:
        return self._probe_at is not None and self._clock() >= self._probe_at
