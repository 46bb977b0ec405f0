"""What goes wrong between us and the provider, before it becomes an error of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from app.domain.errors import ModelTimeout, ModelUnavailable, RagError

# These may pass; another try with what is wrong about the request itself would only cost more.
_PASSING_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})

# OpenAI: "Requested 604573 tokens, max 300000 tokens per request", "maximum context length is 8192 tokens";
# Ollama: "the input length exceeds the context length"; text-embeddings-inference: "batch size 100 > maximum
# allowed batch size 32"; vLLM: "maximum context length", "too long".
_TOO_LARGE = re.compile(r"tokens|context length|batch size|too (?:large|long|many)", re.IGNORECASE)


class ProviderFailure(Exception):
    """An attempt that failed.

    Attributes:
        summary: for the client, to be read after the model's name: "did not answer in time".
        provider_message: the provider's or the network's own words, for the log only.
        is_transient: the same request may succeed later.
        retry_after_s: how long the provider wants to be left alone.
        status: of the response that refused the request; None where there was none, or it was 200.
        is_down: whether it tells that the provider does not work; None where it tells nothing of that.
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
        """The status, or else one of few words."""
        return "failed" if self.status is None else str(self.status)

    @property
    def is_too_large(self) -> bool:
        """Whether the request held more than the provider takes at once; 400 may mean anything else, too."""
        return self.status == 413 or (self.status in {400, 422} and bool(_TOO_LARGE.search(str(self))))

    def as_error(self, model: str) -> RagError:
        return ModelUnavailable(f"{model} {self.summary}")


class ProviderTimeout(ProviderFailure):
    @property
    def reason(self) -> str:
        return "timeout"

    def as_error(self, model: str) -> RagError:
        return ModelTimeout(f"{model} {self.summary}")


def refused(status: int, text: str, retry_after: str | None) -> ProviderFailure:
    """The failure that a response's status tells."""
    return ProviderFailure(
        f"answered with status {status}",
        text,
        is_transient=status in _PASSING_STATUSES,
        retry_after_s=_seconds(retry_after),
        status=status,
        is_down=status >= 500,
    )


def _seconds(retry_after: str | None) -> float | None:
    """Of a `Retry-After` header: a number, or a date."""
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
    """Around reading what the provider sent: JSON of another shape shows up as one of these."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ProviderFailure("sent an answer that cannot be understood", repr(error)) from error
