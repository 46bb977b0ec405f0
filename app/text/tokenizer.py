"""The tokenizer that is bundled with WordLlama's package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.text.token_cache import TokenCache

# A word with all the blanks before it except one.
_WORD = re.compile(r" ( *[^ ]+)")


def _package_file(*parts: str) -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("wordllama is not installed: run make install")
    return Path(spec.submodule_search_locations[0], *parts)


@cache
def load_tokenizer() -> Tokenizer:
    """Load the tokenizer once, without truncation and padding."""
    tokenizer = Tokenizer.from_file(str(_package_file("tokenizers", "l2_supercat_tokenizer_config.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class StaticTokens:
    """A thread-safe tokenizer of the bundled model, with a cache of words."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer()
        self._words = TokenCache(self._tokenize)

    def of(self, text: str) -> npt.NDArray[np.intp]:
        """Return a text's token ids, of shape (tokens,); other models have about as many tokens."""
        return np.fromiter(self._tokens(text), dtype=np.intp)

    def _tokens(self, text: str) -> Iterable[int]:
        # The tokenizer puts a blank before a text, writes blanks as "▁", and lets no token span two words.
        # Words can therefore be tokenized one by one, unless the text may contain a special token.
        if "<" in text or "▁" in text or text.endswith(" "):
            return self._tokenize(text)
        if "  " in text or text.startswith(" "):
            return self._words.of(_WORD.findall(f" {text}"))
        # str.split is four times as fast as the pattern.
        return self._words.of(text.split(" "))

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens
