"""The sample documents: what a first user asks of them is answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import SAMPLE_DOCUMENTS
from tests.support.serving import ROOT


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(__file__).parent / "data" / name).read_text().splitlines()]


def ask(client: httpx.Client, question: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/query", json={"query": question}).json()
    return answer


def test_the_sample_has_enough_documents_and_formats(sample: httpx.Client) -> None:
    listed = sample.get("/documents").json()["documents"]
    formats = Counter(Path(document["name"]).suffix for document in listed)
    assert 15 <= len(listed) <= 25
    assert {".pdf", ".docx", ".xlsx", ".pptx", ".html", ".md", ".csv"} <= set(formats)
    assert {document["status"] for document in listed} == {"indexed"}
    assert {path.relative_to(SAMPLE_DOCUMENTS).as_posix() for path in SAMPLE_DOCUMENTS.rglob("*.*")} == {
        document["name"] for document in listed
    }


def test_the_questions_find_their_documents(sample: httpx.Client) -> None:
    """No model provider is used. The expected shares are those measured, with a margin for other versions."""
    questions = lines("questions.jsonl")
    first = among = page = 0
    for question in questions:
        found = ask(sample, question["question"])["citations"]
        names = [citation["document"] for citation in found]
        first += names[:1] == [question["document"]]
        among += question["document"] in names
        page += any(
            citation["document"] == question["document"] and citation["page"] == question["page"]
            for citation in found
        )
    assert len(questions) >= 50
    assert first >= 0.65 * len(questions)
    assert among >= 0.88 * len(questions)
    assert page >= 0.83 * len(questions)


def test_most_off_topic_questions_are_declined(sample: httpx.Client) -> None:
    questions = lines("off_topic.jsonl")
    declined = sum(ask(sample, question["question"])["status"] == "no_context" for question in questions)
    assert len(questions) >= 20
    assert declined >= 0.75 * len(questions)


def test_the_office_files_agree_with_their_sources() -> None:
    """Neither has been edited without the other."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_sample_documents.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
