"""Errors in the format of OpenAI's API."""

from __future__ import annotations

from typing import Literal

from app.domain.errors import InvalidRequest, RagError, RateLimited
from app.http.openai_schemas import ErrorInfo, ErrorResponse
from app.http.schemas import FieldProblem

PREFIX = "/v1/"


def openai_status(error: RagError) -> int:
    """Return the HTTP status that OpenAI's API uses for an error."""
    return 400 if isinstance(error, InvalidRequest) else error.status


def _type_of(error: RagError) -> Literal["invalid_request_error", "rate_limit_error", "server_error"]:
    if isinstance(error, RateLimited):
        return "rate_limit_error"
    return "server_error" if error.status >= 500 else "invalid_request_error"


def openai_error_json(error: RagError, errors: list[FieldProblem] | None, request_id: str) -> bytes:
    """Render an error as the body of a response."""
    response = ErrorResponse(
        error=ErrorInfo(
            message=error.detail,
            type=_type_of(error),
            param=errors[0].field if errors else None,
            code=error.code,
        ),
        request_id=request_id,
    )
    return response.model_dump_json().encode()
