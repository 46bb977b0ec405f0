"""Settings of the HTTP server: where it listens, its limits, its logs and traces."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from app.config.choices import LogFormat, LogLevel
from app.config.groups.group import SettingsGroup
from app.config.secrets import MAY_HOLD_PASSWORD
from app.config.validators import checked_collector_address


class ServerSettings(SettingsGroup, title="Server"):
    """The address and the processes of the HTTP server."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. An address other than loopback needs API keys, or "
        "`ALLOW_ANONYMOUS`.",
    )
    port: int = Field(
        default=8000,
        ge=1,
        le=65535,
        description="TCP port to listen on.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Number of server processes. They share the port and the index on disk.",
    )


class LimitSettings(SettingsGroup, title="Limits"):
    """Limits on requests: their size, their time and how many are answered at once."""

    max_body_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        description="Largest body of a request, in bytes.",
    )
    request_timeout_s: float = Field(
        default=60,
        gt=0,
        description="Seconds that a request may take for embedding, retrieval and the answer, also if it is "
        "streamed. The body must arrive in the same time.",
    )
    stream_idle_timeout_s: float = Field(
        default=20,
        gt=0,
        description="Seconds that a language model may pause between two tokens.",
    )
    drain_timeout_s: float = Field(
        default=30,
        ge=0,
        description="Seconds that requests may still take when the server is told to stop. Streams that "
        "take longer end with an error event.",
    )
    max_concurrency: int = Field(
        default=256,
        ge=1,
        description="Number of requests that a worker answers at the same time.",
    )
    max_queue: int = Field(
        default=1024,
        ge=0,
        description="Number of requests that may wait in a worker, for 5 seconds at most. More are refused "
        "with 503.",
    )


class ObservabilitySettings(SettingsGroup, title="Logs and traces"):
    """The log, and traces. Metrics need no setting."""

    log_level: LogLevel = Field(
        default=LogLevel.INFO,
        description="Lowest level that is logged.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.CONSOLE,
        description="Format of the log: lines for people, or a JSON object on each line.",
    )
    log_questions: bool = Field(
        default=False,
        description="Adds the question to the log line of a request.",
    )
    collector: Annotated[str, AfterValidator(checked_collector_address), MAY_HOLD_PASSWORD] | None = Field(
        default=None,
        alias="otel_exporter_otlp_endpoint",
        description="Address of the OTLP collector that traces are sent to, such as "
        "`http://localhost:4318`. It needs the packages of the extra `tracing`. By default there are no "
        "traces.",
    )
