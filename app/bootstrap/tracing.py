"""Make the tracing, if it is wanted: OpenTelemetry's packages take 0.3 s to import, and may be missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.config.settings import Settings, SettingsError

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from app.observability.tracing import Tracing

# FastAPI's own; its settings come from variables that are not this service's.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

_NEEDED = "opentelemetry.exporter.otlp.proto.http"
_HOW = "python -m pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"


def check_tracing(settings: Settings) -> None:
    """Check that the packages for traces are installed, if traces are wanted.

    Raises:
        SettingsError: traces are wanted, and what sends them is not installed.
    """
    if settings.observability.collector is None:
        return
    try:
        installed = find_spec(_NEEDED) is not None
    except ModuleNotFoundError:  # one of the packages that it is in
        installed = False
    if not installed:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_ENDPOINT: traces need more packages: {_HOW}")


def make_tracing(settings: Settings) -> Tracing | None:
    """Make the tracing; None if no collector is set.

    Raises:
        SettingsError: see `check_tracing`.
    """
    if settings.observability.collector is None:
        return None
    check_tracing(settings)
    # Its packages take 0.3 s to import, and are only there for those who have installed the extra.
    from app.observability.tracing import LOCAL, Tracing  # noqa: PLC0415

    providers = {
        "embed": "openai" if settings.uses_openai_embeddings else LOCAL,
        "generate": "openai" if settings.uses_openai_llm else LOCAL,
    }
    return Tracing(settings.observability.collector, providers)
