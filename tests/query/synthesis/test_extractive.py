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


def test_a_passage_that_was_seen_before_is_quoted_as_it_is_now() -> None:
    """Though its chunk has the same id."""
    question = "How long is parental leave?"
    for text in ("Leave lasts 16 weeks.", "Leave lasts 20 weeks.", "Leave lasts 16 weeks."):
        assert quote(question, passage(text)) == f"{text} [1]"


def test_no_more_than_400_sentences_are_compared() -> None:
    """Of all passages together."""
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


def test_a_row_is_quoted_alone_and_by_its_code() -> None:
    """Not the header, not the rule, and also if a text line stands directly above the table."""
    table = "Codes:\n| Code | Meaning |\n| --- | --- |\n| WC-04 | Too dry |\n| WC-05 | Too humid |"
    answer = quote("What does WC-05 mean?", passage(table))
    assert answer.startswith("WC-05 | Too humid [1]")
    assert "---" not in answer
    assert "Meaning" not in answer


def test_a_code_counts_as_a_whole() -> None:
    """Its parts stand in the other sentence, too."""
    answer = quote("What about ab-12?", passage("AB-13 has 12 of these. AB-12 has 13 of these."))
    assert answer.startswith("AB-12 has 13 of these. [1]")


def test_rows_without_a_header_are_all_there() -> None:
    rows = "| Rome | 100 |\n| Oslo | 200 |\n| Bern | 300 |"
    assert quote("What about Rome?", passage(rows)).startswith("Rome | 100 [1]")


def test_a_footnotes_mark_is_not_taken_for_a_marker() -> None:
    """It would send the reader to another passage."""
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
def test_no_text_is_looked_at_again_and_again(filling: str) -> None:
    """A pattern that goes back and forth over these would not end before the test's time limit."""
    long = filling * (200_000 // len(filling))
    assert quote(f"leave {long}", passage(f"Leave lasts 16 weeks. {long}"))
