"""Failures of single attempts to call the provider, before they become errors of the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from app.domain.errors import ModelTimeout, ModelUnavailable, RagError

# Statuses that are worth a retry. Any other means that the request itself is wrong, and a retry costs money.
_PASSING_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})

# OpenAI: "Requested 604573 tokens, max 300000 tokens per request", "maximum context length is 8192 tokens";
# Ollama: "the input length exceeds the context length"; text-embeddings-inference: "batch size 100 > maximum
# allowed batch size 32"; vLLM: "maximum context length", "too long".
_TOO_LARGE = re.compile(r"tokens|context length|batch size|too (?:large|long|many)", re.IGNORECASE)


class ProviderFailure(Exception):
    """A failed attempt to call the provider.

    Attributes:
        summary: shown to the client after the model's name, such as "did not answer in time".
        provider_message: the text of the provider or of the network error, for the log only.
        is_transient: True if the same request may succeed later.
        retry_after_s: the pause that the provider asked for, if it did.
        status: the status of the response; None if there was no response, or its status was 200.
        is_down: True if the failure means that the provider is down, False if it means that the provider
            works, None if it means neither.
    """

    def __init__(
        self,
        summary: str,
        provider_message: object = "",
        *,
        is_transient: bool = False,
        retry_after_s: float | None = None,
        status: int | None = None,
        is_down: bool | None = True,
    ) -> None:
        super().__init__(str(provider_message) or summary)
        self.summary = summary
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s
        self.status = status
        self.is_down = is_down

    @property
    def reason(self) -> str:
        """The response's status, or one of a few fixed words, for use as a metric's label."""
        return "failed" if self.status is None else str(self.status)

    @property
    def is_too_large(self) -> bool:
        """True if the request exceeded a limit of the provider; a 400 counts only if its text says so."""
        return self.status == 413 or (self.status in {400, 422} and bool(_TOO_LARGE.search(str(self))))

    def as_error(self, model: str) -> RagError:
        return ModelUnavailable(f"{model} {self.summary}")


class ProviderTimeout(ProviderFailure):
    """An attempt that ran out of time."""

    @property
    def reason(self) -> str:
        return "timeout"

    def as_error(self, model: str) -> RagError:
        return ModelTimeout(f"{model} {self.summary}")


def refused(status: int, text: str, retry_after: str | None) -> ProviderFailure:
    """Make the failure for a response whose status is not 200."""
    return ProviderFailure(
        f"answered with status {status}",
        text,
        is_transient=status in _PASSING_STATUSES,
        retry_after_s=_seconds(retry_after),
        status=status,
        is_down=status >= 500,
    )


def _seconds(retry_after: str | None) -> float | None:
    """Parse a `Retry-After` header, which holds a number or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


@contextmanager
def as_malformed_response() -> Iterator[None]:
    """Translate the errors of parsing a response of an unexpected shape into `ProviderFailure`."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ProviderFailure("sent a malformed response", repr(error)) from error
