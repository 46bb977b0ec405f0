"""Logs with one line per event, as text or as JSON, with the request's id if there is one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from app.config.secrets import SecretMask

NO_REQUEST = "-"
request_id: ContextVar[str] = ContextVar("request_id", default=NO_REQUEST)

_HEAD = ("time", "level", "logger", "request_id", "message")
# Hiding a shorter string would hide half of the log.
_MIN_SECRET_CHARS = 6
# Characters that begin a line, control a terminal, or cannot be encoded.
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(r"[!#-<>-~]+")


class LogFormatter(logging.Formatter):
    """A formatter that renders a record as a line of text or JSON.

    A record's `fields`, a mapping, are added to the line.

    Args:
        log_format: `json` or `console`.
        secrets: strings to hide, whoever writes them: a provider may repeat the key that it was sent, and a
            driver its address.
    """

    def __init__(self, log_format: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self._mask = SecretMask(secrets, min_chars=_MIN_SECRET_CHARS)
        self._render = _as_json if log_format == "json" else _as_text

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
        }
        event.update(getattr(record, "fields", ()))
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return self._mask.apply(self._render(event))


def _time(created: float) -> str:
    """Format a time as ISO 8601 with milliseconds."""
    return f"{_time_to_second(int(created))}.{int(created % 1 * 1000):03d}+00:00"


@lru_cache(maxsize=16)
def _time_to_second(created: int) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def log_config(level: str, log_format: str = "console", secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Make the configuration for `logging.config.dictConfig`; libraries log from WARNING on."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LogFormatter, "log_format": log_format, "secrets": list(secrets)}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"app": {"level": level}, "uvicorn": {"level": level}},
    }


def _as_json(event: dict[str, Any]) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except orjson.JSONEncodeError:  # such as for a file name that is not valid Unicode
        return json.dumps(event, default=str)


def _as_text(event: dict[str, Any]) -> str:
    """Render an event as one line, whatever it contains; only a traceback has lines of its own."""
    traceback = event.pop("exception", "")
    time, level, name, request, message = (event.pop(key) for key in _HEAD)
    parts = [f"{time} {level.upper():<7} {name} [{request}] {_NOT_PRINTED.sub(_escaped, message)}"]
    parts += [f"{key}={_value(value)}" for key, value in event.items()]
    return " ".join(parts) + (f"\n{traceback}" if traceback else "")


def _value(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return (
        value
        if _PLAIN.fullmatch(value)
        else _NOT_PRINTED.sub(_escaped, json.dumps(value, ensure_ascii=False))
    )


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
