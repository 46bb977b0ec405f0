"""The OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.http.openai_errors import PREFIX
from app.http.paths import PROBES
from app.http.problems import MEDIA_TYPE


def with_key_scheme(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark every operation except the probes as needing a key, so that the docs page has a field for it."""
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in PROBES else [{"key": []}]
    return schema


def describe(app: FastAPI, *, with_keys: bool) -> dict[str, Any]:
    """Generate FastAPI's description of the API, without the errors that it adds but that never occur."""
    schema = FastAPI.openapi(app)
    for name, path in schema["paths"].items():
        for operation in path.values():
            if name.startswith(PREFIX):
                operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                if problem := response.get("content", {}).get(MEDIA_TYPE):
                    response["content"] = {MEDIA_TYPE: problem}
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return with_key_scheme(schema) if with_keys else schema
