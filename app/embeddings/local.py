"""WordLlama's static embeddings: bundled with its package, so nothing is downloaded, and 0.04 ms a question.

Only the package's data files are used. Importing it takes 1.1 s (it brings an HTTP client for downloads) and
reconfigures the root logger, and its pooling pads every batch to its longest text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from app.embeddings.words import WordMemo

MODEL = "wordllama-l2-supercat"
DIMENSIONS = 256

# A question of this length takes 0.2 ms; changing the thread would take as long.
_INLINE_CHARS = 500

# A word, with the blanks before it but for one.
_WORD = re.compile(r" ( *[^ ]+)")

Vectors = npt.NDArray[np.float32]


def _package_file(*parts: str) -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("wordllama is not installed: run make install")
    return Path(spec.submodule_search_locations[0], *parts)


@cache
def load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(_package_file("tokenizers", "l2_supercat_tokenizer_config.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@cache
def _load_weights() -> Vectors:
    """Shape (vocabulary, 256)."""
    weights: Vectors = load_file(_package_file("weights", "l2_supercat_256.safetensors"))["embedding.weight"]
    return np.ascontiguousarray(weights, dtype=np.float32)


class _TokenVectors:
    """Texts to vectors. A class of its own, since a pydantic model's private attribute takes 2 µs to read."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer()
        self._words = WordMemo(self._tokenize)
        self._weights = _load_weights()

    def embed(self, texts: list[str]) -> Vectors:
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for text, vector in zip(texts, vectors, strict=True):
            tokens = np.fromiter(self._tokens(text), dtype=np.intp)
            # The sum has the direction of the mean.
            np.add.reduce(self._weights.take(tokens, axis=0, mode="clip"), axis=0, out=vector)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        lengths[lengths == 0] = 1
        vectors /= lengths[:, np.newaxis]
        return vectors

    def _tokens(self, text: str) -> Iterable[int]:
        # The tokenizer puts a blank before a text, for it a "▁", and no token reaches from a word into the
        # next: so that words can be tokenized one by one. Only what may be a special token changes that.
        if "<" in text or "▁" in text or text.endswith(" "):
            return self._tokenize(text)
        if "  " in text or text.startswith(" "):
            return self._words.of(_WORD.findall(f" {text}"))
        # Four times as fast as the pattern.
        return self._words.of(text.split(" "))

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


class LocalEmbedding(BaseEmbedding):
    """The mean of the texts' token vectors, at length 1."""

    _vectors: _TokenVectors = PrivateAttr(default_factory=_TokenVectors)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(model_name=MODEL, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        return "LocalEmbedding"

    def embed(self, texts: list[str]) -> Vectors:
        """Shape (texts, 256), float32, rows of length 1; a text without tokens gives zeros."""
        return self._vectors.embed(texts)

    async def embed_question(self, text: str) -> list[float]:
        """As `aget_query_embedding`; see `QuestionModel`."""
        if len(text) <= _INLINE_CHARS:
            return self._vector(text)
        return await asyncio.to_thread(self._vector, text)

    def _vector(self, text: str) -> list[float]:
        vector: list[float] = self.embed([text])[0].tolist()
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embed(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.embed_question(query)
