"""The data sets beside the checkout, in ../shared/data."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SHARED = ROOT.parent / "shared" / "data"


class MissingData(Exception):
    """A data set is missing; the text is one line that says where it should be."""


@dataclass(frozen=True)
class Search:
    """A retrieval test collection.

    Attributes:
        documents: title and text by document id.
        queries: text by query id.
        relevant: grade by document id, by query id.
    """

    documents: dict[str, tuple[str, str]]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Question:
    """A question of SQuAD, with the paragraph and article that answer it."""

    text: str
    paragraph: str
    article: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Squad:
    """SQuAD 2.0: paragraphs by id, their articles, the questions that they answer, and others."""

    paragraphs: dict[str, str]
    articles: dict[str, int]
    questions: list[Question]
    unanswerable: list[str]


def scifact() -> Search:
    """Read SciFact: claims, and the abstracts that support or refute them."""
    return _search(_folder("scifact"), "corpus.jsonl.gz")


def xquad(language: str) -> Search:
    """Read XQuAD in one language: questions, and the paragraphs that answer them."""
    return _search(_folder("xquad") / language, "corpus.jsonl")


def squad2() -> Squad:
    """Read the development set of SQuAD 2.0."""
    paragraphs: dict[str, str] = {}
    articles: dict[str, int] = {}
    questions: list[Question] = []
    unanswerable: list[str] = []
    with gzip.open(_folder("squad2") / "dev-v2.0.json.gz", "rt", encoding="utf-8") as stream:
        data = json.load(stream)["data"]
    for article, content in enumerate(data):
        for paragraph in content["paragraphs"]:
            name = f"p{len(paragraphs):04d}"
            paragraphs[name], articles[name] = paragraph["context"], article
            questions.extend(
                Question(asked["question"], name, article, tuple({gold["text"] for gold in asked["answers"]}))
                for asked in paragraph["qas"]
                if not asked["is_impossible"]
            )
            unanswerable.extend(asked["question"] for asked in paragraph["qas"] if asked["is_impossible"])
    return Squad(paragraphs, articles, questions, unanswerable)


def sample_questions(name: str) -> list[dict[str, Any]]:
    """Read questions about the sample documents."""
    return _jsonl(ROOT / "tests" / "data" / name)


def _folder(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        raise MissingData(f"the data set ../shared/data/{name} is missing, so this cannot be measured")
    return folder


def _search(folder: Path, corpus: str) -> Search:
    relevant: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant.setdefault(query, {})[document] = int(grade)
    return Search(
        documents={each["_id"]: (each["title"], each["text"]) for each in _jsonl(folder / corpus)},
        queries={each["_id"]: each["text"] for each in _jsonl(folder / "queries.jsonl")},
        relevant=relevant,
    )


def _jsonl(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
