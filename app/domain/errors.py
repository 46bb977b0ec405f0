"""Every error that the service raises on purpose.

RagError                      has an HTTP status and a code; the API renders it as a problem document
├── InvalidRequest            422 invalid_request
├── Unauthorized              401 unauthorized
├── ModelNotFound             404 model_not_found (the OpenAI API's)
├── BodyTooLarge              413 body_too_large
├── RequestTimeout            408 request_timeout
├── UriTooLong                414 uri_too_long
├── HeadersTooLarge           431 headers_too_large
├── RateLimited               429 rate_limited
├── Overloaded                503 overloaded
├── IndexNotReady             503 index_not_ready
├── ModelUnavailable          502 model_unavailable
└── ModelTimeout              504 model_timeout

IndexingError                 the index could not be built or opened; its text tells an operator what to do
├── NoDocuments
├── IndexLocked               another process is writing
├── IndexReadOnly             there is no index, and none can be built
├── SnapshotDamaged
├── SnapshotNotFound          there is no snapshot to roll back to
├── FingerprintMismatch       the index was built with another embedding model than the configured one
├── EmbeddingChanged          the provider's model changed during a run
├── TooManyDocumentsLost      more than MAX_SHRINK of the documents are gone
├── DatabaseError             PostgreSQL refused an operation
│   └── DatabaseUnavailable   PostgreSQL cannot be reached
└── IndexingCancelled
"""

from __future__ import annotations


class RagError(Exception):
    """An error that a client sees: `detail` is sent over HTTP, so it must not reveal internals."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class InvalidRequest(RagError):
    status = 422
    code = "invalid_request"
    title = "Invalid request"


class Unauthorized(RagError):
    status = 401
    code = "unauthorized"
    title = "Unauthorized"


class ModelNotFound(RagError):
    status = 404
    code = "model_not_found"
    title = "Model not found"


class BodyTooLarge(RagError):
    status = 413
    code = "body_too_large"
    title = "Body too large"


class RequestTimeout(RagError):
    status = 408
    code = "request_timeout"
    title = "Request timeout"


class UriTooLong(RagError):
    status = 414
    code = "uri_too_long"
    title = "Address too long"


class HeadersTooLarge(RagError):
    status = 431
    code = "headers_too_large"
    title = "Headers too large"


class RateLimited(RagError):
    status = 429
    code = "rate_limited"
    title = "Too many requests"


class Overloaded(RagError):
    status = 503
    code = "overloaded"
    title = "Overloaded"


class IndexNotReady(RagError):
    status = 503
    code = "index_not_ready"
    title = "Index not ready"


class ModelUnavailable(RagError):
    status = 502
    code = "model_unavailable"
    title = "Model unavailable"


class ModelTimeout(RagError):
    status = 504
    code = "model_timeout"
    title = "Model timeout"


class IndexingError(Exception):
    """Building or opening an index failed; the text says what is wrong and what to do.

    `/health` shows the text to everybody, so it does not quote a provider; `reason` is for operators.
    """

    @property
    def reason(self) -> str:
        """The text, followed by the provider's message if that was the cause."""
        message = self.__cause__.__cause__ if self.__cause__ else None
        return f"{self} ({message})" if message else str(self)


class NoDocuments(IndexingError):
    pass


class IndexLocked(IndexingError):
    pass


class IndexReadOnly(IndexingError):
    pass


class SnapshotDamaged(IndexingError):
    pass


class SnapshotNotFound(IndexingError):
    pass


class FingerprintMismatch(IndexingError):
    pass


class EmbeddingChanged(IndexingError):
    pass


class TooManyDocumentsLost(IndexingError):
    pass


class DatabaseError(IndexingError):
    """PostgreSQL refused an operation."""

    @property
    def reason(self) -> str:
        """The text, followed by the first line of the database's message."""
        lines = str(self.__cause__ or "").splitlines()
        return f"{self} ({lines[0]})" if lines else str(self)


class DatabaseUnavailable(DatabaseError):
    pass


class IndexingCancelled(IndexingError):
    pass
