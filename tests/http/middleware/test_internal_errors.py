"""An unexpected exception becomes a problem document, wherever it is raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.config.settings import Settings
from app.http.middleware.request_context import RequestRecord
from app.main import create_app
from tests.support.serving import serve_in_thread, wait_for

ORIGIN = "https://app.example.com"
KEY = "a-key-of-this-test"
SECURITY_HEADERS = {"x-content-type-options", "x-frame-options", "referrer-policy", "cache-control"}


class Raises:
    """A middleware that fails for questions, and for nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            raise RuntimeError("inner text")
        await self._app(scope, receive, send)


def with_all_middleware(settings: Callable[..., Settings]) -> FastAPI:
    return create_app(
        settings(api_keys=f"tester:{KEY}", rate_limit="100/minute", cors_origins=ORIGIN, log_format="json")
    )


def raising_within(app: FastAPI, name: str) -> FastAPI:
    """The application, with an exception raised just inside of the middleware of that name."""
    names = [middleware.cls.__name__ for middleware in app.user_middleware]  # type: ignore[attr-defined]
    app.user_middleware.insert(names.index(name) + 1, Middleware(Raises))
    return app


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of the access log's lines."""
    return [vars(record)["fields"] for record in caplog.records if record.name == "app.requests"]


def ask(url: str, path: str = "/query") -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}", "Origin": ORIGIN, "X-Request-ID": "mine"}
    return httpx.post(f"{url}{path}", json={"query": "How long?"}, headers=headers, timeout=60)


LAYERS = [
    "InternalErrors",
    "CORSMiddleware",
    "HeaderLimit",
    "Authentication",
    "RateLimit",
    "RefuseWhenDraining",
    "BodyLimit",
    "CancelOnDisconnect",
    "Admission",
]


def test_every_middleware_has_a_case_below(settings: Callable[..., Settings]) -> None:
    """A middleware that is added needs a case, too."""
    app = with_all_middleware(settings)
    names = dict.fromkeys(middleware.cls.__name__ for middleware in app.user_middleware)  # type: ignore[attr-defined]
    assert list(names) == [RequestRecord.__name__, *LAYERS]


@pytest.mark.parametrize("layer", LAYERS)
def test_an_exception_below_each_middleware_is_a_problem_document(
    settings: Callable[..., Settings], layer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the request's id, the security headers and no inner text, and the log has a line with 500."""
    caplog.set_level("INFO", logger="app.requests")
    with serve_in_thread(raising_within(with_all_middleware(settings), layer)) as url:
        answer = ask(url)
        counted = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["request_id"]) == ("internal_error", "mine")
    assert answer.headers["x-request-id"] == "mine"
    assert set(answer.headers) >= SECURITY_HEADERS
    assert "inner text" not in answer.text
    if layer not in {"InternalErrors", "CORSMiddleware"}:  # these have not got to what lets others read
        assert answer.headers["access-control-allow-origin"] == ORIGIN
    # Written when the server has ended, at the latest.
    (line,) = (fields for fields in logged(caplog) if fields["path"] == "/query")
    assert (line["status"], line["outcome"]) == (500, "internal_error")
    assert 'method="POST",route="none",status="500"} 1.0' in counted.text


def test_an_exception_below_v1_has_openais_shape(settings: Callable[..., Settings]) -> None:
    with serve_in_thread(raising_within(with_all_middleware(settings), "Authentication")) as url:
        answer = ask(url, "/v1/chat/completions")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"


def test_an_exception_after_the_response_has_begun_aborts_it(settings: Callable[..., Settings]) -> None:
    """The status is already sent, and the client must not take the rest for a complete answer."""

    class RaisesLate:
        def __init__(self, app: ASGIApp) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
                raise RuntimeError("inner text")

    app = create_app(settings())
    app.user_middleware.append(Middleware(RaisesLate))
    with serve_in_thread(app) as url, pytest.raises(httpx.RemoteProtocolError):
        ask(url)


@pytest.mark.parametrize("path", ["/healthz", "/health-records", "/health/other", "/metrics/more"])
def test_paths_that_begin_like_a_probe_are_logged(
    sample_on_disk: httpx.Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The 404s of a probe with a misspelt path are in the log."""
    caplog.set_level("INFO", logger="app.requests")
    assert sample_on_disk.get(path).status_code == 404
    wait_for(lambda: path in [fields["path"] for fields in logged(caplog)], "the line of the request")
