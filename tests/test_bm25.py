"""BM25: its words and its statistics, against the formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import qdrant_edge as qdrant

from app.bm25 import Bm25Encoder, K, LengthCounter, TermStatistics

TEXTS = ["the cat sat", "the dog sat down", "the bird flew over the green house", "苹果很好吃"]


def statistics(texts: list[str]) -> TermStatistics:
    terms = TermStatistics()
    for text in texts:
        terms.add(Bm25Encoder().encode_document(text).indices)
    return terms


def test_lengths_are_counted_in_words() -> None:
    assert LengthCounter().count("alpha beta gamma beta") == pytest.approx(4)
    assert LengthCounter().count("") == 0


def test_languages_without_spaces_are_split() -> None:
    """Whole sentences as one word would never match a question."""
    question = set(Bm25Encoder().encode_query("苹果").indices)
    assert question & set(Bm25Encoder().encode_document(TEXTS[3]).indices)


@pytest.mark.parametrize(
    "text",
    [
        "The dog's 3,000.50 e-mails (U.S.A.) cost $5: foo.bar@x.com, snake_case camelCase C++ it's",
        "Die Donaudampfschifffahrtsgesellschaft hat ihre Krankenversicherung gewechselt",
        "two  blanks, a\ttab\nand\x0bcontrol\x1echaracters\x00",
        "la señora está à Zürich, ИСТАНБУЛ İstanbul ﬁn",
        "hypoxia-inducible factor 1α and synthase kinase 3β",
        "苹果很好吃 and 육아휴직 กินข้าว",
        "",
    ],
)
def test_terms_are_those_of_the_whole_text(text: str) -> None:
    """Also where they are looked up word by word."""
    whole = qdrant.Bm25(qdrant.Bm25Config(tokenizer=qdrant.TokenizerType.Multilingual)).embed_query(text)
    encoder = Bm25Encoder()
    for _ in range(2):
        assert encoder.terms(text) == set(whole.indices)
        query = encoder.encode_query(text)
        assert (query.indices, query.values) == (whole.indices, whole.values)


def test_the_bound_is_the_best_score_that_there_could_be() -> None:
    terms = statistics(TEXTS)
    (cat,) = Bm25Encoder().encode_query("cat").indices
    (sat,) = Bm25Encoder().encode_query("sat").indices
    inverse = {1: math.log(1 + 3.5 / 1.5), 2: math.log(1 + 2.5 / 2.5)}
    assert terms.score_bound([cat]) == pytest.approx((K + 1) * inverse[1])
    assert terms.score_bound([cat, sat]) == pytest.approx((K + 1) * (inverse[1] + inverse[2]))


def test_a_word_that_is_nowhere_raises_the_bound_most() -> None:
    """That is what makes a question about something else score low."""
    terms = statistics(TEXTS)
    known, unknown = (Bm25Encoder().encode_query(word).indices for word in ("cat", "volcano"))
    assert terms.score_bound(unknown) > terms.score_bound(known)


def test_statistics_survive_saving_and_changes(tmp_path: Path) -> None:
    """Loaded, added to, removed from, saved again: as if counted anew."""
    path = tmp_path / "terms.npy"
    first = statistics(TEXTS[:2])
    first.save(path)
    loaded = TermStatistics.load(path, first.chunks)
    loaded.add(Bm25Encoder().encode_document(TEXTS[2]).indices)
    loaded.remove(Bm25Encoder().encode_document(TEXTS[0]).indices)
    loaded.save(path)
    again = TermStatistics.load(path, loaded.chunks)

    expected = statistics(TEXTS[1:3])
    question = Bm25Encoder().encode_query("the cat sat on a green house").indices
    assert again.chunks == 2
    assert again.score_bound(question) == pytest.approx(expected.score_bound(question))
    assert loaded.score_bound(question) == pytest.approx(expected.score_bound(question))
