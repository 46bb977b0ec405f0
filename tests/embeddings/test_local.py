"""The bundled embedding: word by word the same as its tokenizer makes of the whole text."""

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
def test_a_text_is_the_mean_of_its_tokens(text: str) -> None:
    """Also where blanks, special tokens or other scripts could make words depend on each other."""
    for _ in range(2):
        assert EMBEDDING.embed([text])[0] == pytest.approx(mean_of_tokens(text), abs=1e-6)


def test_no_token_reaches_over_a_blank() -> None:
    """That is why words can be tokenized one by one."""
    assert not [token for token in load_tokenizer().get_vocab() if "▁" in token.lstrip("▁")]


def test_texts_are_rows_of_length_one_and_nothing_is_zeros() -> None:
    vectors = EMBEDDING.embed(["a", "", "leave"])
    assert vectors.shape == (3, DIMENSIONS)
    assert vectors.dtype == np.dtype(np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1])
    assert EMBEDDING.embed([]).shape == (0, DIMENSIONS)


class Spans(BaseSpanHandler[BaseSpan]):
    """Keeps the names of what was traced."""

    names: list[str] = []  # noqa: RUF012 - a field of the model

    def new_span(self, id_: str, *_: Any, **__: Any) -> BaseSpan:
        self.names.append(id_)
        return BaseSpan(id_=id_)

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        return None

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        return None


def test_embedding_a_question_is_not_traced() -> None:
    """Each span would take as long as the embedding; LlamaIndex's public methods still open theirs."""
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
