"""Who is told what happens between the service and its provider."""

from __future__ import annotations

from typing import Protocol


class ProviderObserver(Protocol):
    """Endpoints are named by their paths, such as `embeddings`."""

    def endpoint(self, endpoint: str) -> None:
        """There is one."""

    def failed(self, endpoint: str, reason: str) -> None:
        """An attempt failed; the reason is one of few."""

    def retried(self, endpoint: str) -> None:
        """It will be made again."""

    def breaker(self, endpoint: str, is_open: bool) -> None:
        """It is left alone from now on, or no longer."""


class Unobserved:
    def endpoint(self, endpoint: str) -> None: ...

    def failed(self, endpoint: str, reason: str) -> None: ...

    def retried(self, endpoint: str) -> None: ...

    def breaker(self, endpoint: str, is_open: bool) -> None: ...


UNOBSERVED = Unobserved()
