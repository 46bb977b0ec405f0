"""The cache of words' token ids."""

from __future__ import annotations

from app.text import token_cache as words
from app.text.token_cache import TokenCache


def lengths(asked: list[str]) -> TokenCache:
    def compute(word: str) -> list[int]:
        asked.append(word)
        return [len(word), 0]

    return TokenCache(compute)


def test_each_word_is_computed_once() -> None:
    """The ids are in the order of the words."""
    asked: list[str] = []
    memo = lengths(asked)
    assert list(memo.of(["a", "bb", "a"])) == [1, 0, 2, 0, 1, 0]
    assert list(memo.of(["bb"])) == [2, 0]
    assert asked == ["a", "bb"]


def test_the_cache_is_bounded() -> None:
    """It limits both the number and the length of its words."""
    memo = lengths([])
    for number in range(2 * words._REMEMBERED + 10):
        assert list(memo.of([f"w{number}"]))
        assert len(memo) <= words._REMEMBERED
    endless = "x" * 100_000
    assert list(memo.of([endless])) == [100_000, 0]
    assert endless not in memo
