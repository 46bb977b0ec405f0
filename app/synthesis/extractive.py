"""Answers without a language model: the best one to three sentences, quoted from the passages."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sentencex import segment

from app.bm25 import Bm25Encoder
from app.embeddings.local import LocalEmbedding
from app.schemas import Citation
from app.synthesis.contract import Synthesis

MODEL = "extractive"

_PASSAGES = 5
_SENTENCES = 3
# A further sentence must be this good, compared with the best.
_WORTH_ADDING = 0.7

# Beside the share of the question's words, which counts 1. With these, what is quoted holds the gold answer
# of 0.865 of 800 questions of SQuAD 2.0, in 380 characters (benchmarks/README.md).
_MEANING = 1.0
_PASSAGE_SCORE = 0.5
_CODES = 0.5

_MAX_SENTENCE_CHARS = 600
_MAX_UNITS = 400

_TABLE_RULE = re.compile(r"^\|[ :|-]+$")
_LIST_MARK = re.compile(r"^(?:[-*+•]|\d+[.)])\s+")
_ESCAPE = re.compile(r"\\(?=[^\w\s])")
_WORD = re.compile(r"[\w.-]+")
# A footnote's mark or an index in the text would look like a marker of ours.
_BRACKETED_NUMBER = re.compile(r"\[(\d{1,4})\]")

_PLAIN_SUFFIXES = (".pdf", ".txt", ".text", ".log", ".rst")

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sentence:
    text: str
    passage: Citation


class ExtractiveSynthesizer:
    """Ranks sentences by the question's words and by meaning, weighed with their passage's own score."""

    model = MODEL

    def __init__(self, embedding: LocalEmbedding) -> None:
        self._embedding = embedding
        self._encoder = Bm25Encoder()

    async def synthesize(self, question: str, passages: Sequence[Citation]) -> Synthesis:
        # Some milliseconds of computing.
        return Synthesis(await asyncio.to_thread(self.quote, question, passages), usage=None)

    def quote(self, question: str, passages: Sequence[Citation]) -> str:
        sentences = [sentence for passage in passages[:_PASSAGES] for sentence in _sentences(passage)][
            :_MAX_UNITS
        ]
        if not sentences:
            return f"{passages[0].text[:_MAX_SENTENCE_CHARS].strip()} [{passages[0].marker}]"
        scores = self._scores(question, sentences)
        best_first = sorted(range(len(sentences)), key=lambda index: -scores[index])
        worth = [
            index
            for index in best_first[:_SENTENCES]
            if scores[index] >= _WORTH_ADDING * scores[best_first[0]]
        ]
        return " ".join(f"{sentences[index].text} [{sentences[index].passage.marker}]" for index in worth)

    def _scores(self, question: str, sentences: list[_Sentence]) -> Scores:
        """Higher is better; a sentence is judged together with the headings above it."""
        texts = [f"{sentence.passage.heading or ''} {sentence.text}" for sentence in sentences]
        vectors = self._embedding.embed([question, *texts])
        meaning = np.maximum(vectors[1:] @ vectors[0], 0).astype(np.float64)
        passages = np.array([sentence.passage.score for sentence in sentences])
        scores: Scores = (
            self._word_scores(question, texts)
            + _MEANING * meaning
            + _PASSAGE_SCORE * passages / max(passages.max(), 1e-9)
            + _CODES * _code_scores(question, sentences)
        )
        return scores

    def _word_scores(self, question: str, texts: list[str]) -> Scores:
        """The share of the question's words in each text; those rare among the texts count more."""
        asked = set(self._encoder.encode_query(question).indices)
        found = [asked & set(self._encoder.encode_query(text).indices) for text in texts]
        frequency = Counter(term for terms in found for term in terms)
        weight = {term: math.log(1 + len(texts) / (1 + frequency[term])) for term in asked}
        total = sum(weight.values()) or 1.0
        return np.array([sum(weight[term] for term in terms) / total for terms in found])


def _code_scores(question: str, sentences: list[_Sentence]) -> Scores:
    """The share of the question's numbers and codes, such as 2025 or WC-05, that stand in each sentence."""
    asked = _codes(question)
    return np.array([len(asked & _codes(each.text)) / max(len(asked), 1) for each in sentences])


def _codes(text: str) -> set[str]:
    words = (word.strip(".-") for word in _WORD.findall(text.lower()))
    return {word for word in words if any(char.isdigit() for char in word)}


def _sentences(passage: Citation) -> list[_Sentence]:
    """Sentences of prose, items of lists, rows of tables; as they stand, but for Markdown's own signs."""
    texts: list[str] = []
    paragraph: list[str] = []
    lines = passage.text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") or not line.strip():
            texts.extend(_prose(paragraph))
            paragraph = []
        if not line.startswith("|"):
            paragraph.append(line)
        elif not _TABLE_RULE.match(line) and not _TABLE_RULE.match(following):
            texts.append(line.strip().strip("|").strip())
    texts.extend(_prose(paragraph))
    return [
        _Sentence(_as_quoted(text, passage)[:_MAX_SENTENCE_CHARS], passage)
        for text in texts
        if any(char.isalnum() for char in text)
    ]


def _as_quoted(text: str, passage: Citation) -> str:
    if not passage.document.lower().endswith(_PLAIN_SUFFIXES):
        text = _ESCAPE.sub("", text)
    return _BRACKETED_NUMBER.sub(r"(\1)", text)


def _prose(lines: list[str]) -> list[str]:
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if mark := _LIST_MARK.match(line.strip()):
            paragraphs.append([line.strip()[mark.end() :]])
        else:
            paragraphs[-1].append(line.strip())
    joined = (" ".join(part for part in paragraph if part) for paragraph in paragraphs)
    return [sentence.strip() for text in joined if text for sentence in segment("en", text)]
