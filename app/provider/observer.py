"""The contract of an observer of provider calls, such as the metrics."""

from __future__ import annotations

from typing import Protocol


class ProviderObserver(Protocol):
    """An observer of provider calls; endpoints are named by their paths, such as `embeddings`."""

    def endpoint(self, endpoint: str) -> None:
        """Register an endpoint before its first call."""

    def failed(self, endpoint: str, reason: str) -> None:
        """Record a failed attempt; see `ProviderFailure.reason`."""

    def retried(self, endpoint: str) -> None:
        """Record that a failed attempt will be repeated."""

    def breaker(self, endpoint: str, is_open: bool) -> None:
        """Record that the endpoint's circuit breaker opened or closed."""


class Unobserved:
    """An observer that ignores everything."""

    def endpoint(self, endpoint: str) -> None: ...

    def failed(self, endpoint: str, reason: str) -> None: ...

    def retried(self, endpoint: str) -> None: ...

    def breaker(self, endpoint: str, is_open: bool) -> None: ...


UNOBSERVED = Unobserved()
