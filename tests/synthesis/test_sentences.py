"""Passages taken apart."""

from __future__ import annotations

import time

from app.synthesis.sentences import split_sentences


def test_prose_lists_and_tables_are_each_split_their_way() -> None:
    text = "One is here. Two\nis there.\n\n- item a\n2) item b\n| c | d |\n| - | - |\n| e | f |\n\n---"
    assert split_sentences(text, markdown=True, limit=9) == [
        "One is here.",
        "Two is there.",
        "item a",
        "item b",
        "e | f",
    ]


def test_no_more_is_read_than_is_wanted() -> None:
    """Of a megabyte, three sentences take no longer than of a page."""
    paragraph = "This is a sentence. And another one.\n\n"
    started = time.thread_time()
    assert len(split_sentences(paragraph * 100_000, markdown=True, limit=3)) == 3
    assert time.thread_time() - started < 0.3
