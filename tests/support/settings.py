"""Settings that differ from others."""

from __future__ import annotations

from typing import Any

from app.config.settings import Settings


def with_values(settings: Settings, **values: Any) -> Settings:
    """Return the settings with other values; what was not set stays at its default."""
    return Settings(**settings.model_dump(exclude_unset=True) | values)
