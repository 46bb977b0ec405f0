"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import InvalidRequest, RagError
from app.schemas import FieldProblem, Problem
from app.telemetry import request_id

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def problem_response(
    error: RagError, *, errors: list[FieldProblem] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    if error.retry_after_s is not None:
        headers = {**(headers or {}), "Retry-After": str(error.retry_after_s)}
    return _response(error.status, error.code, error.title, error.detail, errors, headers)


def _response(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: list[FieldProblem] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        type=f"urn:rag-service:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        request_id=request_id.get(),
        errors=errors,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**(headers or {}), "X-Request-ID": request_id.get()},
    )


def install_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RagError, _on_rag_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_rag_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RagError)  # noqa: S101 - tells the type checker what it was registered for
    if error.status >= 500:
        # The cause holds what the provider said, which the client does not get to see.
        logger.warning("%s: %s (cause: %s)", error.code, error.detail, error.__cause__ or "none")
    return problem_response(error)


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = [_field_problem(one) for one in error.errors()]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
    return problem_response(InvalidRequest(detail), errors=errors)


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
    message = "there is no such field" if error["type"] == "extra_forbidden" else error["msg"]
    return FieldProblem(field=".".join(where), message=message)


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    if error.status_code == 400:  # FastAPI's, for a body that its parser gives up on
        return problem_response(InvalidRequest("body: not valid JSON"))
    code = _HTTP_CODES.get(error.status_code, "http_error")
    headers = dict(error.headers) if error.headers else None
    return _response(error.status_code, code, str(error.detail), str(error.detail), headers=headers)


def internal_error_response(error: Exception) -> JSONResponse:
    logger.error("internal error", exc_info=error)
    return problem_response(
        RagError("something went wrong; the server's log has the reason under this request id")
    )
