"""What sizes of chunks are counted in."""

from __future__ import annotations

from enum import StrEnum


class ChunkUnit(StrEnum):
    CHARACTERS = "characters"
    TOKENS = "tokens"
