"""Quoted answers: what is quoted, and how it is written."""

from __future__ import annotations

import pytest

from app.domain.answer import Passage
from app.embeddings.local import LocalEmbedding
from app.query.synthesis.extractive import ExtractiveSynthesizer

SYNTHESIZER = ExtractiveSynthesizer(LocalEmbedding())


def passage(text: str, document: str = "a.md", marker: int = 1) -> Passage:
    return Passage(
        marker=marker, document=document, page=None, heading=None, text=text, score=0.5, chunk_id=str(marker)
    )


def quote(question: str, *passages: Passage) -> str:
    return SYNTHESIZER.quote(question, passages)


def test_a_changed_passage_is_quoted_with_its_new_text() -> None:
    """Its chunk may still have the same id."""
    question = "How long is parental leave?"
    for text in ("Leave lasts 16 weeks.", "Leave lasts 20 weeks.", "Leave lasts 16 weeks."):
        assert quote(question, passage(text)) == f"{text} [1]"


def test_no_more_than_400_sentences_are_compared() -> None:
    """The limit holds for all passages together."""
    many = passage("\n\n".join(f"Filler number {number}." for number in range(399)))
    wanted = passage("Nothing. Parental leave lasts 16 weeks.", marker=2)
    assert "16 weeks" not in quote("How long is parental leave?", many, wanted)
    fewer = passage("\n\n".join(f"Filler number {number}." for number in range(398)))
    assert "16 weeks" in quote("How long is parental leave?", fewer, wanted)


def test_the_best_sentence_comes_first_with_its_marker() -> None:
    answer = quote(
        "How long is parental leave?",
        passage("Trains are booked in second class. The office is closed on Sundays."),
        passage("It is paid in full. Parental leave lasts 16 weeks.", marker=2),
    )
    assert answer.startswith("Parental leave lasts 16 weeks. [2]")


def test_a_table_row_is_quoted_without_header_and_rule() -> None:
    """This also holds if a line of text stands directly above the table."""
    table = "Codes:\n| Code | Meaning |\n| --- | --- |\n| WC-04 | Too dry |\n| WC-05 | Too humid |"
    answer = quote("What does WC-05 mean?", passage(table))
    assert answer.startswith("WC-05 | Too humid [1]")
    assert "---" not in answer
    assert "Meaning" not in answer


def test_a_code_is_matched_as_a_whole() -> None:
    """A sentence with the parts of the code is not chosen."""
    answer = quote("What about ab-12?", passage("AB-13 has 12 of these. AB-12 has 13 of these."))
    assert answer.startswith("AB-12 has 13 of these. [1]")


def test_a_table_without_a_header_keeps_all_rows() -> None:
    rows = "| Rome | 100 |\n| Oslo | 200 |\n| Bern | 300 |"
    assert quote("What about Rome?", passage(rows)).startswith("Rome | 100 [1]")


def test_a_footnote_mark_is_not_quoted_as_a_marker() -> None:
    """It would lead the reader to another passage."""
    answer = quote("How long is leave?", passage("Leave lasts 16 weeks [2]."), passage("Other.", marker=2))
    assert "Leave lasts 16 weeks (2). [1]" in answer


@pytest.mark.parametrize(
    ("document", "text", "quoted"),
    [
        ("a.txt", "Keys are in C:\\Users\\me\\.ssh there.", "Keys are in C:\\Users\\me\\.ssh there."),
        ("a.md", "It costs 5 \\* 3 euros.", "It costs 5 * 3 euros."),
    ],
)
def test_only_markdown_is_unescaped(document: str, text: str, quoted: str) -> None:
    assert quoted in quote("Where are the keys, what does it cost?", passage(text, document))


@pytest.mark.parametrize("filling", ["-", " ", "a-", "[", "1", "_", "|", "\n", "."])
def test_no_text_causes_backtracking(filling: str) -> None:
    """A pattern that backtracks over these texts would exceed the test's time limit."""
    long = filling * (200_000 // len(filling))
    assert quote(f"leave {long}", passage(f"Leave lasts 16 weeks. {long}"))
