"""Errors as responses: RFC 9457 problem documents, or OpenAI's format below `/v1/`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.domain.errors import InvalidRequest, RagError
from app.http import openai_errors
from app.http.schemas import FieldProblem, Problem
from app.observability.logging import request_id
from app.observability.request_context import current_context

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def error_response(
    path: str,
    error: RagError,
    *,
    errors: list[FieldProblem] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Make the response for an error, in the format that the clients of a path expect."""
    current_context().outcome = error.code
    if error.retry_after_s is not None:
        headers = {**(headers or {}), "Retry-After": str(error.retry_after_s)}
    if path.startswith(openai_errors.PREFIX):
        content = openai_errors.openai_error_json(error, errors, request_id.get())
        return Response(content, openai_errors.openai_status(error), headers, "application/json")
    return Response(problem_json(error, errors), error.status, headers, MEDIA_TYPE)


def problem_json(error: RagError, errors: list[FieldProblem] | None = None) -> bytes:
    """Render an error as a problem document."""
    problem = Problem(
        type=f"urn:rag-service:problem:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        request_id=request_id.get(),
        errors=errors,
    )
    return problem.model_dump_json(exclude_none=True).encode()


def install_handlers(app: FastAPI) -> None:
    """Register the handlers of all expected errors."""
    app.add_exception_handler(RagError, _on_rag_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_rag_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RagError)  # noqa: S101 - tells the type checker what it was registered for
    log_error(error)
    return error_response(request.url.path, error)


def log_error(error: RagError) -> None:
    """Log an error of the server, or of what it depends on."""
    if error.status >= 500:
        # The cause quotes the provider, which the client does not get to see.
        logger.warning("%s: %s (cause: %s)", error.code, error.detail, error.__cause__ or "none")


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = [_field_problem(one) for one in error.errors()]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
    return error_response(request.url.path, InvalidRequest(detail), errors=errors)


def _field_problem(error: dict[str, Any]) -> FieldProblem:
    where = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return FieldProblem(
            field="body", message=f"not valid JSON: {error['ctx']['error']} (at character {where[0]})"
        )
    if not where and error["type"] == "value_error":
        return FieldProblem(field="body", message=str(error["ctx"]["error"]))
    if not where:
        message = "must be a JSON object, sent with Content-Type: application/json"
        return FieldProblem(field="body", message=message)
    message = (
        "there is no such field"
        if error["type"] == "extra_forbidden"
        else error["msg"].removeprefix("Value error, ")
    )
    return FieldProblem(field=".".join(where), message=message)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    if error.status_code == 400:  # raised by FastAPI for a body that its parser cannot read
        return error_response(request.url.path, InvalidRequest("body: not valid JSON"))
    known = RagError(str(error.detail))
    known.status, known.title = error.status_code, str(error.detail)
    known.code = _HTTP_CODES.get(error.status_code, "http_error")
    return error_response(request.url.path, known, headers=dict(error.headers) if error.headers else None)


def as_internal_error(error: Exception) -> RagError:
    """Log an unexpected exception with its traceback; the client gets only the request's id."""
    logger.error("internal error", exc_info=error)
    return RagError("something went wrong; the server's log has the reason under this request id")
