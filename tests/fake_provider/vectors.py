"""Embeddings of texts by their words: texts with common words are near."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from base64 import b64encode
from typing import Protocol
from zlib import crc32

import numpy as np

DIMENSIONS = 96
_WORD = re.compile(r"\w+")


class Vectors(Protocol):
    """Embeds texts; gives JSON."""

    def floats(self, text: str) -> str:
        """Return a list of numbers."""

    def base64(self, text: str) -> str:
        """Return OpenAI's other encoding: a string of little-endian 32 bit floats."""


def embed(text: str) -> list[float]:
    """Return a bag of words, hashed to `DIMENSIONS` numbers: texts without a common word are orthogonal."""
    vector = [0.0] * DIMENSIONS
    for word in _WORD.findall(text.lower()):
        place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % DIMENSIONS
        vector[place] += 1.0
    return vector if any(vector) else [1.0] + [0.0] * (DIMENSIONS - 1)


class BagOfWords:
    """The vectors of `embed`, with which a question about something else finds nothing."""

    def floats(self, text: str) -> str:
        return json.dumps(embed(text))

    def base64(self, text: str) -> str:
        return f'"{b64encode(struct.pack(f"<{DIMENSIONS}f", *embed(text))).decode()}"'


class NearVectors:
    """Vectors of a real model's length that cost a few microseconds, none of them far from another.

    Each is a unit vector, the larger part of it the same for all texts, so that every question has an answer,
    the rest a hashed bag of words. All its numbers are as long as a real embedding's, so that reading them
    costs a client as much.
    """

    def __init__(self, dimensions: int = 1536, common_part: float = 0.8) -> None:
        drawn = np.random.default_rng(20261120).standard_normal(dimensions)
        self._common = (drawn * common_part / np.linalg.norm(drawn)).astype("<f4")
        self._texts = [repr(float(value)) for value in self._common]
        self._squares = [float(value) ** 2 for value in self._common]
        self._rest = 1 - common_part**2

    def floats(self, text: str) -> str:
        places, value = self._own(text)
        texts = self._texts.copy()
        written = repr(value)
        for place in places:
            texts[place] = written
        return f"[{','.join(texts)}]"

    def base64(self, text: str) -> str:
        places, value = self._own(text)
        values = self._common.copy()
        values[places] = value
        return f'"{b64encode(values.tobytes()).decode()}"'

    def _own(self, text: str) -> tuple[list[int], float]:
        """Return the places in which a text differs from all others, and the value that all of them have."""
        dimensions = len(self._texts)
        places = list({crc32(word.encode()) % dimensions for word in _WORD.findall(text.lower())}) or [0]
        rest = self._rest + sum(self._squares[place] for place in places)
        return places, math.sqrt(rest / len(places))
