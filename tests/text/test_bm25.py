"""BM25: terms, weights and statistics, compared with the formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import qdrant_edge as qdrant

from app.text.bm25 import K, TermCounter, TermCounts, TermStatistics, counts_of, weights

TEXTS = ["the cat sat", "the dog sat down", "the bird flew over the green house", "苹果很好吃"]


def statistics(texts: list[str]) -> TermStatistics:
    terms = TermStatistics()
    for text in texts:
        terms.add(TermCounter().count(text).terms)
    return terms


def test_lengths_are_counted_in_words() -> None:
    """A text's length is its number of tokens."""
    assert TermCounter().count("alpha beta gamma beta").length == 4
    assert TermCounter().count("").length == 0


def test_languages_without_spaces_are_split() -> None:
    """A whole sentence as one term would never match a question."""
    question = set(TermCounter().query("苹果").indices)
    assert question & set(TermCounter().count(TEXTS[3]).terms)


OF_ALL_KINDS = [
    "The dog's 3,000.50 e-mails (U.S.A.) cost $5: foo.bar@x.com, snake_case camelCase C++ it's",
    "Die Donaudampfschifffahrtsgesellschaft hat ihre Krankenversicherung gewechselt",
    "two  blanks, a\ttab\nand\x0bcontrol\x1echaracters\x00, and two",
    "la señora está à Zürich, ИСТАНБУЛ İstanbul ﬁn",
    "hypoxia-inducible factor 1α and synthase kinase 3β",
    "苹果很好吃 and 육아휴직 กินข้าว",
    "the cat and the dog and the bird " * 30,
    "",
]


@pytest.mark.parametrize("text", OF_ALL_KINDS)
def test_terms_are_those_of_the_engine(text: str) -> None:
    """Looking up words one by one gives the terms of the whole text."""
    whole = qdrant.Bm25(qdrant.Bm25Config(tokenizer=qdrant.TokenizerType.Multilingual)).embed_query(text)
    counter = TermCounter()
    for _ in range(2):
        assert counter.terms(text) == set(whole.indices)
        query = counter.query(text)
        assert (query.indices, query.values) == (whole.indices, whole.values)


@pytest.mark.parametrize("text", OF_ALL_KINDS)
@pytest.mark.parametrize("average_length", [3.0, 150.0])
def test_weights_are_those_of_the_engine(text: str, average_length: float) -> None:
    """The counts can be recovered, so that an index can be moved to another average length."""
    config = qdrant.Bm25Config(avg_len=average_length, tokenizer=qdrant.TokenizerType.Multilingual)
    expected = qdrant.Bm25(config).embed_document(text)
    counted = TermCounter().count(text)
    made = weights(counted.counts, length=counted.length, average_length=average_length)
    assert dict(zip(counted.terms, made, strict=True)) == pytest.approx(
        dict(zip(expected.indices, expected.values, strict=True)), rel=1e-5
    )
    again = counts_of(made, length=counted.length, average_length=average_length)
    assert TermCounts(counted.terms, again) == counted


def test_the_score_bound_follows_the_formula() -> None:
    """It is K + 1 times the sum of the terms' inverse document frequencies."""
    terms = statistics(TEXTS)
    (cat,) = TermCounter().query("cat").indices
    (sat,) = TermCounter().query("sat").indices
    inverse = {1: math.log(1 + 3.5 / 1.5), 2: math.log(1 + 2.5 / 2.5)}
    assert terms.score_bound([cat]) == pytest.approx((K + 1) * inverse[1])
    assert terms.score_bound([cat, sat]) == pytest.approx((K + 1) * (inverse[1] + inverse[2]))


def test_a_word_that_no_chunk_contains_raises_the_bound_most() -> None:
    """A question about something else therefore has a low relevance."""
    terms = statistics(TEXTS)
    known, unknown = (TermCounter().query(word).indices for word in ("cat", "volcano"))
    assert terms.score_bound(unknown) > terms.score_bound(known)


def test_statistics_survive_saving_and_changes(tmp_path: Path) -> None:
    """Statistics that are loaded, changed and saved again are equal to freshly counted ones."""
    path = tmp_path / "terms.npy"
    first = statistics(TEXTS[:2])
    first.save(path)
    loaded = TermStatistics.load(path, first.chunks)
    loaded.add(TermCounter().count(TEXTS[2]).terms)
    loaded.remove(TermCounter().count(TEXTS[0]).terms)
    loaded.save(path)
    again = TermStatistics.load(path, loaded.chunks)

    expected = statistics(TEXTS[1:3])
    question = TermCounter().query("the cat sat on a green house").indices
    assert again.chunks == 2
    assert again.score_bound(question) == pytest.approx(expected.score_bound(question))
    assert loaded.score_bound(question) == pytest.approx(expected.score_bound(question))
