"""Which model made an index's vectors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fingerprint(BaseModel):
    """Vectors can be compared only if they agree in all of these."""

    model_config = ConfigDict(frozen=True)

    provider: str
    model: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.dimensions} dimensions)"
