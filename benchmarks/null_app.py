"""An application that measures FastAPI itself: `python -m benchmarks.null_app --port 9000`.

One route reads a body with the same fields as the service's and returns a small answer. It is served like
the service: one worker, uvloop, httptools, no access log. With `--layers`, it runs behind the service's
middleware (key, rate limit, size limits, log lines as JSON, metrics), and with its rare garbage collections,
since it has loaded as many modules.
"""

from __future__ import annotations

import argparse
import logging.config
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from app.bootstrap.middleware import make_middleware, make_middleware_parts
from app.config.choices import LogFormat
from app.config.secrets import secrets_of
from app.config.settings import Settings
from app.http.problems import install_handlers
from app.main import relax_gc
from app.observability.logging import log_config
from benchmarks.connection import API_KEY
from benchmarks.processes import Replica, free_port, running


class NullRequest(BaseModel):
    """A request with the fields of the service's."""

    query: str
    top_k: int | None = None
    filters: dict[str, str | list[str]] | None = None


class NullAnswer(BaseModel):
    """A response with two of the fields of the service's."""

    answer: str
    status: str


app = FastAPI()


@app.post("/query")
async def query(request: NullRequest) -> NullAnswer:
    """Return the question as its answer."""
    return NullAnswer(answer=request.query, status="answered")


@app.get("/health")
async def health() -> dict[str, str]:
    """Report that the application runs."""
    return {"status": "ok"}


@contextmanager
def null_app(*, layers: bool = False) -> Iterator[Replica]:
    """Run the application in a process of its own, with or without the service's middleware."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.null_app", f"--port={port}"]
    with running([*command, "--layers"] if layers else command, port=port, ready="/health") as server:
        yield server


def serve(application: FastAPI, port: int, *, protocol: str = "httptools") -> None:
    """Serve an application with uvicorn, with the same options as the service."""
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http=protocol,
        access_log=False,
        log_level="warning",
    )


def _add_middleware() -> None:
    settings = Settings(
        api_keys=SecretStr(f"benchmark:{API_KEY}"), rate_limit="100000/minute", log_format=LogFormat.JSON
    )
    logging.config.dictConfig(
        log_config(settings.observability.log_level, settings.observability.log_format, secrets_of(settings))
    )
    install_handlers(app)
    app.user_middleware[:] = make_middleware(settings, make_middleware_parts(settings))


def main() -> None:
    """Serve the application."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_app", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--layers", action="store_true")
    arguments = parser.parse_args()
    if arguments.layers:
        _add_middleware()
        relax_gc()
        serve(app, arguments.port, protocol="app.http.server.protocol:BoundedProtocol")
    else:
        serve(app, arguments.port)


if __name__ == "__main__":
    main()
