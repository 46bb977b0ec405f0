"""The bundled embedding: tokenizing word by word gives the same as tokenizing the whole text."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import BaseSpan
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from app.embeddings.local import LocalEmbedding
from app.embeddings.static_model import DIMENSIONS, _load_weights
from app.text.tokenizer import load_tokenizer

EMBEDDING = LocalEmbedding()


def mean_of_tokens(text: str) -> Any:
    tokens = load_tokenizer().encode(text, add_special_tokens=False).ids
    mean = _load_weights()[tokens].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    "text",
    [
        "How long is parental leave?",
        " a blank before, two  within   and one after ",
        "lines\nand\ttabs,\r\n\n  and an indent",
        "an end </s> of a text <s>, an <unk> and 1 < 2",
        "育児休暇は何週間ですか。 Ünïcödé 𝔸\u00a0\x00",
        'hyphen-ated, (bracketed) "quoted" a_b_c http://a.b/c?d=e ' + "x" * 5000,
        "▁a ▁▁ ▁",
        " ",
        "<",
    ],
)
def test_a_vector_is_the_mean_of_the_texts_tokens(text: str) -> None:
    """Blanks, special tokens and other scripts do not make words depend on each other."""
    for _ in range(2):
        assert EMBEDDING.embed([text])[0] == pytest.approx(mean_of_tokens(text), abs=1e-6)


def test_no_token_spans_two_words() -> None:
    """Words can therefore be tokenized one by one."""
    assert not [token for token in load_tokenizer().get_vocab() if "▁" in token.lstrip("▁")]


def test_vectors_have_length_one_except_for_empty_texts() -> None:
    """Each text is a row, and an empty text is a row of zeros."""
    vectors = EMBEDDING.embed(["a", "", "leave"])
    assert vectors.shape == (3, DIMENSIONS)
    assert vectors.dtype == np.dtype(np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1])
    assert EMBEDDING.embed([]).shape == (0, DIMENSIONS)


class Spans(BaseSpanHandler[BaseSpan]):
    """A handler that keeps the names of spans."""

    names: list[str] = []  # noqa: RUF012 - a field of the model

    def new_span(self, id_: str, *_: Any, **__: Any) -> BaseSpan:
        self.names.append(id_)
        return BaseSpan(id_=id_)

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        return None

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        return None


def test_embedding_a_question_opens_no_llamaindex_span() -> None:
    """A span would take as long as the embedding; LlamaIndex's public methods still open theirs."""
    handler = Spans()
    root = get_dispatcher()
    root.add_span_handler(handler)
    try:
        vector = asyncio.run(EMBEDDING.embed_question("leave"))
        assert handler.names == []
        assert asyncio.run(EMBEDDING.aget_query_embedding("leave")) == vector
        assert handler.names
    finally:
        root.span_handlers.remove(handler)
