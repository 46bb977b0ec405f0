"""What is remembered of passages: never another's, and never too much."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np

from app.domain.answer import Passage
from app.embeddings.local import LocalEmbedding
from app.query.synthesis.sentence_analysis import SentenceAnalysis, SentenceAnalyzer
from app.text.bm25 import TermCounter
from tests.support.serving import ROOT

EMBEDDING = LocalEmbedding()
ENCODER = TermCounter()


def analyzer(remembered_bytes: int = 1_000_000) -> SentenceAnalyzer:
    return SentenceAnalyzer(EMBEDDING, ENCODER, max_sentences=400, remembered_bytes=remembered_bytes)


def passage(text: str, document: str = "a.md", heading: str | None = None) -> Passage:
    return Passage(
        marker=1, document=document, page=None, heading=heading, text=text, score=0.5, chunk_id="same"
    )


def long_passage(number: int) -> Passage:
    return passage(f"Number {number}. " + "Leave lasts for a number of weeks. " * 20)


def same(one: SentenceAnalysis, other: SentenceAnalysis) -> bool:
    return (
        one.sentences == other.sentences
        and np.array_equal(one.vectors, other.vectors)
        and sorted(zip(one.places, one.terms, strict=True))
        == sorted(zip(other.places, other.terms, strict=True))
    )


def test_a_passage_is_analysed_once() -> None:
    remembering = analyzer()
    first = remembering.analyze(passage("Leave lasts 16 weeks."))
    assert remembering.analyze(passage("Leave lasts 16 weeks.".replace("x", "y"))) is first


def test_passages_that_differ_have_separate_analyses() -> None:
    """After a swap, a chunk may have the same id but another text, heading or format."""
    remembering = analyzer()
    passages = [
        passage("It costs 5 \\* 3 euros."),
        passage("It costs 5 \\* 4 euros."),
        passage("It costs 5 \\* 3 euros.", heading="Prices"),
        passage("It costs 5 \\* 3 euros.", document="a.txt"),
    ]
    for _ in range(2):
        for one in passages:
            assert same(remembering.analyze(one), analyzer().analyze(one))
    assert len({id(remembering.analyze(one)) for one in passages}) == 4


def test_a_sentence_is_judged_with_its_heading() -> None:
    found = analyzer().analyze(passage("It lasts 16 weeks. It is paid.", heading="Leave"))
    (leave,) = ENCODER.terms("Leave")
    assert found.sentences == ["It lasts 16 weeks.", "It is paid."]
    assert found.places[found.terms == leave].tolist() == [0, 1]
    assert np.allclose(found.vectors, EMBEDDING.embed(["Leave It lasts 16 weeks.", "Leave It is paid."]))


def test_the_most_recently_used_analyses_are_kept() -> None:
    remembering = analyzer(100_000)
    kept = remembering.analyze(long_passage(0))
    other = remembering.analyze(long_passage(1))
    for number in range(2, 50):
        remembering.analyze(long_passage(number))
        assert remembering.analyze(long_passage(0)) is kept
    assert remembering.analyze(long_passage(1)) is not other


def test_memory_is_bounded_in_bytes() -> None:
    """The real size of the passages counts. It is measured while no other thread runs."""
    code = f"from {__name__} import memory_taken; print(memory_taken())"
    found = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, text=True, check=True)
    assert 300_000 < int(done.stdout) < 550_000


def memory_taken() -> int:
    def analyze_many() -> SentenceAnalyzer:
        remembering = analyzer(500_000)
        for number in range(200):
            remembering.analyze(long_passage(number))
            remembering.analyze(passage(f"{number} " * 10_000))
            remembering.analyze(passage(f"{number}"))
        return remembering

    # The words are remembered elsewhere.
    analyze_many()
    tracemalloc.start()
    remembering = analyze_many()
    taken, _ = tracemalloc.get_traced_memory()
    assert remembering
    return taken


def test_too_large_a_passage_is_not_kept() -> None:
    remembering = analyzer(10_000)
    large = long_passage(1)
    assert same(remembering.analyze(large), remembering.analyze(large))
    assert remembering.analyze(large) is not remembering.analyze(large)


def test_the_cache_can_be_used_by_many_threads() -> None:
    """There is space for some of the passages only, so that entries are added and removed all the time."""
    remembering = analyzer(200_000)
    passages = [long_passage(number) for number in range(20)]
    expected = [analyzer().analyze(one) for one in passages]
    wrong: list[int] = []

    def ask(start: int) -> None:
        for step in range(100):
            number = (start * 7 + step) % 20
            if not same(remembering.analyze(passages[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=[start]) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for number in range(20):
        remembering.analyze(passages[number])
    # What two threads made at once is counted once: there is still room for some.
    kept = [remembering.analyze(one) for one in passages[-5:]]
    assert all(remembering.analyze(one) is known for one, known in zip(passages[-5:], kept, strict=True))


def test_joined_and_truncated_analyses_keep_their_own_terms() -> None:
    one = analyzer().analyze(passage("Leave lasts 16 weeks. It is paid."))
    two = analyzer().analyze(passage("Trains are red. Buses are blue."))
    first = SentenceAnalysis.joined([one, two]).first(3)
    (trains,) = ENCODER.terms("trains")
    (buses,) = ENCODER.terms("buses")
    assert first.sentences == ["Leave lasts 16 weeks.", "It is paid.", "Trains are red."]
    assert len(first.vectors) == 3
    assert first.places[first.terms == trains].tolist() == [2]
    assert buses not in first.terms
