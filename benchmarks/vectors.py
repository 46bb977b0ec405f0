"""Embeddings that cost a few microseconds: texts with common words are near, and none is far from another.

Each is a unit vector, the larger part of it the same for all texts, so that every question has an answer,
the rest a hashed bag of words. All its numbers are as long as a real embedding's, so that reading them costs
a client as much.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from dataclasses import dataclass
from zlib import crc32

import numpy as np

DIMENSIONS = 1536
_COMMON_PART = 0.8
_WORD = re.compile(r"\w+")

_drawn = np.random.default_rng(20261120).standard_normal(DIMENSIONS)
_COMMON = (_drawn * _COMMON_PART / np.linalg.norm(_drawn)).astype(np.float32)
_COMMON_TEXTS = [repr(float(value)) for value in _COMMON]
_SQUARES = [float(value) ** 2 for value in _COMMON]


@dataclass(frozen=True)
class Vector:
    """The common vector but for some places, which all have one value."""

    places: tuple[int, ...]
    value: float

    def floats(self) -> str:
        """As JSON."""
        texts = _COMMON_TEXTS.copy()
        own = repr(self.value)
        for place in self.places:
            texts[place] = own
        return f"[{','.join(texts)}]"

    def base64(self) -> str:
        """As JSON, in OpenAI's other encoding: a string of 32 bit floats."""
        values = _COMMON.copy()
        values[list(self.places)] = self.value
        return f'"{b64encode(values.tobytes()).decode()}"'


def embed(text: str) -> Vector:
    places = tuple({crc32(word.encode()) % DIMENSIONS for word in _WORD.findall(text.lower())}) or (0,)
    rest = 1 - _COMMON_PART**2 + sum(_SQUARES[place] for place in places)
    return Vector(places, math.sqrt(rest / len(places)))
