"""What FastAPI costs by itself: `python -m benchmarks.null_app --port 9000`.

One route that reads a body with the same fields as the service's and gives a small answer, served as the
service is: one worker, uvloop, httptools, no access log.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.processes import Server, free_port, running


class NullRequest(BaseModel):
    query: str
    top_k: int | None = None
    filters: dict[str, str | list[str]] | None = None


class NullAnswer(BaseModel):
    answer: str
    status: str


app = FastAPI()


@app.post("/query")
async def query(request: NullRequest) -> NullAnswer:
    return NullAnswer(answer=request.query, status="answered")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@contextmanager
def null_app() -> Iterator[Server]:
    port = free_port()
    with running(
        [sys.executable, "-m", "benchmarks.null_app", f"--port={port}"], port=port, ready="/health"
    ) as server:
        yield server


def serve(application: FastAPI, port: int) -> None:
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_app", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    serve(app, parser.parse_args().port)


if __name__ == "__main__":
    main()
