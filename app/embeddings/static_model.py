"""WordLlama's static embeddings: their weights come with its package, and a question takes 0.04 ms.

Only the package's data files are used. Importing it takes 1.1 s (it includes an HTTP client for downloads)
and reconfigures the root logger, and its pooling pads every batch to its longest text.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from app.domain.vectors import Vectors
from app.text.tokenizer import StaticTokens, _package_file

MODEL = "wordllama-l2-supercat"
DIMENSIONS = 256


@cache
def _load_weights() -> Vectors:
    """Load the matrix of token vectors, of shape (vocabulary, 256)."""
    weights: Vectors = load_file(_package_file("weights", "l2_supercat_256.safetensors"))["embedding.weight"]
    return np.ascontiguousarray(weights, dtype=np.float32)


class StaticModel:
    """The bundled model: a text's vector is the mean of its tokens' vectors, normalised to length 1."""

    def __init__(self) -> None:
        self._tokens = StaticTokens()
        self._weights = _load_weights()

    def embed(self, texts: list[str]) -> Vectors:
        """Return vectors of shape (texts, 256) and length 1; a text without tokens gives a row of zeros."""
        return self.embed_tokens([self._tokens.of(text) for text in texts])

    def embed_tokens(self, texts: list[npt.NDArray[np.intp]]) -> Vectors:
        """Embed texts that are already tokenized; see `embed`."""
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for tokens, vector in zip(texts, vectors, strict=True):
            # A sum instead of the mean: it has the same direction, and the length becomes 1 below.
            np.add.reduce(self._weights.take(tokens, axis=0, mode="clip"), axis=0, out=vector)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        lengths[lengths == 0] = 1
        vectors /= lengths[:, np.newaxis]
        return vectors
