"""Fusing two rankings."""

from __future__ import annotations

import random

import pytest

from app.storage.fusion import fuse


def test_a_fused_score_is_the_weighted_mean() -> None:
    fused = dict(fuse([("a", 0.8), ("b", 0.4)], [("b", 0.5), ("a", 0.1)], dense_weight=0.3, limit=5))
    assert fused == {"a": pytest.approx(0.3 * 0.8 + 0.7 * 0.1), "b": pytest.approx(0.3 * 0.4 + 0.7 * 0.5)}


def test_a_lexical_hit_gets_the_lowest_dense_score() -> None:
    """It cannot be nearer, or it would be among the neighbours."""
    fused = dict(fuse([("a", 0.8), ("b", 0.4)], [("c", 0.5)], dense_weight=0.5, limit=5))
    assert fused["c"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.5)


def test_the_best_comes_first_and_ties_have_a_fixed_order() -> None:
    assert [name for name, _ in fuse([("b", 0.5), ("a", 0.5), ("c", 0.9)], [], dense_weight=1, limit=5)] == [
        "c",
        "a",
        "b",
    ]


def test_a_limit_does_not_change_the_order() -> None:
    """This includes equal scores at the limit."""
    drawn = random.Random(1)
    for _ in range(50):
        dense = [(number, drawn.randint(-3, 3) / 4) for number in drawn.sample(range(40), 20)]
        lexical = [(number, drawn.randint(0, 3) / 4) for number in drawn.sample(range(40), 20)]
        dense.sort(key=lambda item: -item[1])
        everything = fuse(dense, lexical, dense_weight=0.5, limit=40)
        assert everything == sorted(everything, key=lambda item: (-item[1], item[0]))
        assert fuse(dense, lexical, dense_weight=0.5, limit=7) == everything[:7]


def test_a_negative_similarity_counts_as_zero() -> None:
    assert fuse([("a", -0.7)], [], dense_weight=0.5, limit=5) == [("a", 0.0)]
    assert fuse([], [], dense_weight=0.5, limit=5) == []
