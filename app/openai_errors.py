"""Errors as OpenAI's API has them, for its clients."""

from __future__ import annotations

from app.chat_schemas import ErrorInfo, ErrorResponse
from app.errors import InvalidRequest, RagError
from app.schemas import FieldProblem

PREFIX = "/v1/"


def openai_status(error: RagError) -> int:
    return 400 if isinstance(error, InvalidRequest) else error.status


def openai_error_json(error: RagError, errors: list[FieldProblem] | None, request_id: str) -> bytes:
    response = ErrorResponse(
        error=ErrorInfo(
            message=error.detail,
            type="server_error" if error.status >= 500 else "invalid_request_error",
            param=errors[0].field if errors else None,
            code=error.code,
        ),
        request_id=request_id,
    )
    return response.model_dump_json().encode()
