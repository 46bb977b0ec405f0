"""The identity of the model that made the vectors of an index."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fingerprint(BaseModel):
    """An embedding model's identity; only vectors with equal fingerprints can be compared."""

    model_config = ConfigDict(frozen=True)

    provider: str
    model: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.dimensions} dimensions)"
