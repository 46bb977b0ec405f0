"""Passages taken apart."""

from __future__ import annotations

import time

from app.query.synthesis.sentences import split_sentences


def test_prose_lists_and_tables_are_split_differently() -> None:
    text = "One is here. Two\nis there.\n\n- item a\n2) item b\n| c | d |\n| - | - |\n| e | f |\n\n---"
    assert split_sentences(text, markdown=True, limit=9) == [
        "One is here.",
        "Two is there.",
        "item a",
        "item b",
        "e | f",
    ]


def test_only_the_wanted_sentences_are_read() -> None:
    """Three sentences of a megabyte take as long as three of a page."""
    text = "This is a sentence. And another one.\n\n" * 100_000
    # A virtual machine may take the time in which its processor was another's for a thread's.
    assert min(seconds_for_three_sentences(text) for _ in range(2)) < 0.3


def seconds_for_three_sentences(text: str) -> float:
    started = time.thread_time()
    assert len(split_sentences(text, markdown=True, limit=3)) == 3
    return time.thread_time() - started
