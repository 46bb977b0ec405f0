"""The quality of retrieval and of extractive answers, over HTTP and without a key.

The measures of retrieval are trec_eval's, computed by `ir_measures`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from ir_measures import R, Success, calc_aggregate, nDCG
from ir_measures.measures import Measure

from app.embeddings.local import LocalEmbedding
from benchmarks import datasets
from benchmarks.datasets import ROOT, Search, Squad
from benchmarks.naive import NaiveIndex
from benchmarks.report import Report
from benchmarks.service import Client, serve, serve_files, written

_TOP_K = 50
_SEED = 20261120

# The documents of each query's passages, best first, by query id.
Rankings = dict[str, list[str]]


def measure() -> Report:
    """Measure SciFact, XQuAD, SQuAD 2.0 and the sample documents."""
    report = Report("quality")
    _scifact(report)
    for language, bar in (("zh", 0.90), ("th", None), ("ar", None)):
        _xquad(report, language, bar)
    squad = datasets.squad2()
    _squad_found(report, squad)
    _squad_declined(report, squad)
    _sample(report)
    return report.save()


def _scifact(report: Report) -> None:
    search = datasets.scifact()
    with scifact_folder(search) as folder:
        rankings = scifact_rankings(search, folder)
        naive = _naive_rankings(folder, search)
    report.add("SciFact nDCG@10", mean(nDCG @ 10, search, rankings), at_least=0.68)
    report.add("SciFact nDCG@10, naive", mean(nDCG @ 10, search, naive))
    report.add("SciFact recall@10", mean(R @ 10, search, rankings))
    report.add("SciFact recall@50 passages", mean(R @ _TOP_K, search, rankings))


def scifact_folder(search: Search) -> AbstractContextManager[Path]:
    """Write the abstracts to a folder, one per file."""
    return written(
        {f"{name}.md": f"# {title}\n\n{text}\n" for name, (title, text) in search.documents.items()}
    )


def scifact_rankings(search: Search, folder: Path, **settings: str) -> Rankings:
    """Return the rankings of a service with these settings."""
    with serve(folder, **settings) as client:
        return _rankings(client, search)


def mean(measure: Measure, search: Search, rankings: Rankings) -> float:
    """Return a measure's mean over all judged queries."""
    # Every document gets a score of its own, since trec_eval sorts equal scores by name.
    run = {query: {name: -place for place, name in enumerate(ranking)} for query, ranking in rankings.items()}
    return float(calc_aggregate([measure], search.relevant, run)[measure])


def _xquad(report: Report, language: str, bar: float | None) -> None:
    search = datasets.xquad(language)
    with serve_files({f"{name}.txt": text for name, (_, text) in search.documents.items()}) as client:
        rankings = _rankings(client, search)
    report.add(f"XQuAD {language} hit@1", mean(Success @ 1, search, rankings), at_least=bar)


def _squad_found(report: Report, squad: Squad) -> None:
    sample = random.Random(_SEED).sample(squad.questions, 800)
    with serve_files({f"{name}.txt": text for name, text in squad.paragraphs.items()}) as client:
        hits = [_documents(client.retrieve(each.text, 5))[0] == each.paragraph for each in squad.questions]
        answers = [client.query(each.text)["answer"] for each in sample]
    report.add(f"SQuAD 2.0 hit@1, {len(squad.questions)} questions", fmean(hits))
    contained = [_contains(answer, asked.answers) for answer, asked in zip(answers, sample, strict=True)]
    report.add("SQuAD 2.0 answer contains a gold answer, 800 questions", fmean(contained))
    report.add("SQuAD 2.0 mean length of an answer", fmean(map(len, answers)), "characters")


def _squad_declined(report: Report, squad: Squad) -> None:
    """Index every other article, and ask about all: questions on the rest are off topic, but share words."""
    indexed = {
        f"{name}.txt": text for name, text in squad.paragraphs.items() if squad.articles[name] % 2 == 0
    }
    drawn = random.Random(_SEED)
    on_topic = drawn.sample([each for each in squad.questions if each.article % 2 == 0], 500)
    off_topic = drawn.sample([each for each in squad.questions if each.article % 2 == 1], 500)
    with serve_files(indexed) as client:
        answered = fmean(_is_answered(client.query(each.text)) for each in on_topic)
        declined = 1 - fmean(_is_answered(client.query(each.text)) for each in off_topic)
    report.add("SQuAD 2.0, half indexed: on-topic questions answered", answered)
    report.add("SQuAD 2.0, half indexed: off-topic questions declined", declined)


def _sample(report: Report) -> None:
    asked = datasets.sample_questions("questions.jsonl")
    off_topic = datasets.sample_questions("off_topic.jsonl")
    with serve(ROOT / "documents") as client:
        found = [client.retrieve(each["question"], 5) for each in asked]
        answers = [client.query(each["question"])["answer"] for each in asked]
        declined = [not _is_answered(client.query(each["question"])) for each in off_topic]
    pairs = list(zip(asked, found, strict=True))
    report.add(
        "sample corpus: gold document first",
        fmean(passages[0]["document"] == each["document"] for each, passages in pairs),
    )
    report.add(
        "sample corpus: gold document in the top 5",
        fmean(
            any(passage["document"] == each["document"] for passage in passages) for each, passages in pairs
        ),
    )
    paged = [(each, passages) for each, passages in pairs if each["page"] is not None]
    report.add(
        f"sample corpus: gold page in the top 5, {len(paged)} questions",
        fmean(
            any((hit["document"], hit["page"]) == (each["document"], each["page"]) for hit in passages)
            for each, passages in paged
        ),
    )
    contained = [_contains(answer, [each["answer"]]) for answer, each in zip(answers, asked, strict=True)]
    report.add("sample corpus: answer contains the gold answer", fmean(contained))
    report.add("sample corpus: off-topic questions declined", fmean(declined))


def _rankings(client: Client, search: Search) -> Rankings:
    """Return the ranking of each judged query."""
    return {query: _documents(client.retrieve(search.queries[query], _TOP_K)) for query in search.relevant}


def _naive_rankings(folder: Path, search: Search) -> Rankings:
    retriever = NaiveIndex.of_documents(folder, LocalEmbedding()).retriever(_TOP_K)
    found = {query: retriever.retrieve(search.queries[query]) for query in search.relevant}
    return {
        query: _documents([hit.node.metadata for hit in hits], "file_name") for query, hits in found.items()
    }


def _documents(passages: list[dict[str, Any]], field: str = "document") -> list[str]:
    names = (PurePosixPath(passage[field]).stem for passage in passages)
    return list(dict.fromkeys(names))


def _contains(answer: str, golds: Iterable[str]) -> bool:
    text = _normal(answer)
    return any(_normal(gold) in text for gold in golds)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_answered(response: dict[str, Any]) -> bool:
    return bool(response["status"] == "answered")
