"""POST /query and POST /retrieve, keyless, over HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from app.main import create_app
from tests.support.serving import serve_in_thread

QUESTION = "How long is parental leave?"
OFF_TOPIC = "Who painted the ceiling of the Sistine Chapel?"


ODD_BODIES = [
    *(b'{"query": "\xff"}', b"[" * 200_000, b'{"query": "x", "top_k": ' + b"9" * 5000 + b"}"),
    *(b'{"query": "a \\ud800 b"}', b'{"query": "x", "filters": {"document": "\\ud800"}}'),
]


def ask(client: httpx.Client, path: str = "/query", **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_every_field_of_the_contract_has_its_type(sample: httpx.Client) -> None:
    """Clients can rely on each name and type, including null."""
    answer = ask(sample, query=QUESTION)
    health = sample.get("/health").json()

    assert set(answer) == {
        *("answer", "status", "sources", "citations", "model", "index", "usage", "timings_ms")
    }
    assert answer["status"] == "answered"
    assert answer["model"] == "extractive"
    assert answer["usage"] is None
    assert answer["index"] == health["index"]["id"]
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", answer["index"])
    assert list(answer["timings_ms"]) == ["embed", "retrieve", "generate", "total"]
    assert all(isinstance(value, float) and value >= 0 for value in answer["timings_ms"].values())
    for citation in answer["citations"]:
        assert set(citation) == {"marker", "document", "page", "heading", "text", "score", "chunk_id"}
        assert isinstance(citation["document"], str)
        assert isinstance(citation["score"], float)


def test_the_answer_cites_the_right_document_and_page(sample: httpx.Client) -> None:
    """The answer to the README's first question is 16 weeks, on page 3 of policies/leave.pdf."""
    answer = ask(sample, query=QUESTION)

    cited = {int(marker) for marker in re.findall(r"\[(\d+)\]", answer["answer"])}
    passages = {citation["marker"]: citation for citation in answer["citations"]}
    telling = [passages[marker] for marker in cited if "16 weeks" in passages[marker]["text"]]
    assert "16 weeks" in answer["answer"]
    assert [(passage["document"], passage["page"]) for passage in telling] == [("policies/leave.pdf", 3)]
    assert "Parental leave" in telling[0]["heading"]


def test_markers_and_sources_follow_the_citations(sample: httpx.Client) -> None:
    """Markers count from 1, scores fall, and sources are the distinct documents, best first."""
    answer = ask(sample, query="What is covered by the warranty?", top_k=10)

    citations = answer["citations"]
    assert [citation["marker"] for citation in citations] == list(range(1, 11))
    scores = [citation["score"] for citation in citations]
    assert scores == sorted(scores, reverse=True)
    assert answer["sources"] == list(dict.fromkeys(citation["document"] for citation in citations))
    assert len(answer["sources"]) > 1


def test_an_extractive_answer_quotes_its_passages(sample: httpx.Client) -> None:
    """Every sentence occurs in the passage that its marker names."""
    answer = ask(sample, query="How many days may I work from abroad?")

    passages = {citation["marker"]: " ".join(citation["text"].split()) for citation in answer["citations"]}
    quotes = re.findall(r"(.+?) \[(\d+)\]\s*", answer["answer"])
    assert 1 <= len(quotes) <= 3
    for sentence, marker in quotes:
        assert sentence in passages[int(marker)]


def test_both_names_of_a_field_are_equivalent(sample: httpx.Client) -> None:
    """There are clients for either name."""
    one = ask(sample, query=QUESTION, top_k=2)
    other = ask(sample, question=QUESTION, k=2)

    assert len(one["citations"]) == 2
    assert one["citations"] == other["citations"]
    assert one["answer"] == other["answer"]


def test_the_default_top_k_is_the_servers(sample: httpx.Client) -> None:
    assert len(ask(sample, query=QUESTION)["citations"]) == 5


def test_a_question_is_trimmed(sample: httpx.Client) -> None:
    assert ask(sample, query=f"  {QUESTION}\n")["citations"] == ask(sample, query=QUESTION)["citations"]


@pytest.mark.parametrize(
    ("filters", "field", "allowed"),
    [
        ({"document": "policies/remote-work.docx"}, "document", {"policies/remote-work.docx"}),
        (
            {"document": ["policies/leave.pdf", "policies/remote-work.docx"]},
            "document",
            {"policies/leave.pdf", "policies/remote-work.docx"},
        ),
        ({"page": 4}, "page", {4}),
        ({"page": [2, 3], "document": "policies/leave.pdf"}, "page", {2, 3}),
        ({"heading": "Leave > Parental leave"}, "heading", {"Leave > Parental leave"}),
    ],
)
def test_filters_exclude_all_other_documents(
    sample: httpx.Client, filters: dict[str, Any], field: str, allowed: set[Any]
) -> None:
    found = ask(sample, "/retrieve", query="leave", top_k=50, filters=filters)["citations"]
    assert found
    assert {citation[field] for citation in found} <= allowed


def test_a_filter_that_nothing_matches_gives_no_context(sample: httpx.Client) -> None:
    answer = ask(sample, query=QUESTION, filters={"document": "no such document"})
    assert answer["status"] == "no_context"


def test_an_irrelevant_question_gets_no_context(sample: httpx.Client) -> None:
    """There are no passages and no sources, and the answer says that nothing was found."""
    answer = ask(sample, query=OFF_TOPIC)

    assert answer["status"] == "no_context"
    assert answer["citations"] == answer["sources"] == []
    assert "nothing" in answer["answer"]
    assert answer["model"] == "extractive"


def test_retrieve_returns_the_passages_of_query_without_an_answer(sample: httpx.Client) -> None:
    found = ask(sample, "/retrieve", query=QUESTION)

    assert set(found) == {"citations", "index", "timings_ms"}
    assert set(found["timings_ms"]) == {"embed", "retrieve", "total"}
    assert found["citations"] == ask(sample, query=QUESTION)["citations"]


def test_retrieve_returns_passages_of_any_score(sample: httpx.Client) -> None:
    """After a `no_context`, it shows what was found and how low the scores were."""
    found = ask(sample, "/retrieve", query=OFF_TOPIC)["citations"]
    assert len(found) == 5
    assert all(citation["score"] < 0.15 for citation in found)


@pytest.mark.parametrize("query", ["?!", "...", "\u200b", "🙂", "a" * 8000, "ß " * 4000, "x\x00y"])
def test_odd_questions_are_answered(sample: httpx.Client, query: str) -> None:
    """This includes questions without a single word."""
    assert ask(sample, query=query)["status"] in {"answered", "no_context"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "   \n"}, "query"),
        ({"query": "a" * 8001}, "query"),
        ({"query": 7}, "query"),
        ({"query": None}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 51}, "top_k"),
        ({"query": "x", "top_k": "5"}, "top_k"),
        ({"query": "x", "top_k": 2.5}, "top_k"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "temperature": 1}, "temperature"),
        ({"query": "x", "filters": {"author": "me"}}, "filters.author"),
        ({"query": "x", "filters": {"page": "three"}}, "filters.page"),
        ({"query": "x", "filters": {"document": []}}, "filters.document"),
        ({"query": "x", "filters": {"page": 2**63}}, "filters.page"),
        ({"query": "x", "filters": "leave.pdf"}, "filters"),
        ({"query": "x", "question": "x"}, "body"),
        ({"query": "x"} | {f"field{number}": 1 for number in range(20_000)}, "body"),
        ([], "body"),
    ],
)
def test_an_invalid_field_is_named(sample: httpx.Client, body: Any, field: str) -> None:
    for path in ("/query", "/retrieve"):
        response = sample.post(path, json=body)
        problem = response.json()
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["code"] == "invalid_request"
        assert problem["errors"][0]["field"].startswith(field)
        assert problem["errors"][0]["field"] in problem["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b'"text"', b"\xff\xfe", b'{"query": "a \\ud800 b"}', *ODD_BODIES]
)
def test_malformed_bodies_are_refused(sample: httpx.Client, content: bytes) -> None:
    response = sample.post("/query", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_a_body_that_is_not_declared_as_json_is_refused_with_the_remedy(sample: httpx.Client) -> None:
    """curl declares a form if no header is given."""
    response = sample.post(
        "/query",
        content=json.dumps({"query": QUESTION}),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["detail"]


def test_a_body_that_is_too_large_is_refused(sample: httpx.Client) -> None:
    body = b'{"query": "' + b"a" * (1024 * 1024) + b'"}'
    response = sample.post("/query", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_chunked_body_that_is_too_large_is_refused(sample: httpx.Client) -> None:
    """It has no length that could be checked in advance."""

    def parts() -> Any:
        for _ in range(20):
            yield b"a" * 65536

    response = sample.post("/query", content=parts(), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_unknown_paths_and_methods_are_problem_documents(sample: httpx.Client) -> None:
    missing, wrong = sample.get("/nothing"), sample.get("/query")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_an_unexpected_error_is_a_problem_and_keeps_the_connection(sample_settings: Settings) -> None:
    """It has the request's id and no inner text, and the next request on the connection is answered."""
    app = create_app(sample_settings)

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("inner text")

    with serve_in_thread(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(3):
            response = client.get("/fails", headers={"X-Request-ID": "abc"})
            assert (response.status_code, response.json()["code"]) == (500, "internal_error")
            assert response.json()["request_id"] == response.headers["x-request-id"] == "abc"
            assert "inner text" not in response.text
            assert response.headers.get("connection") != "close"


def test_the_request_id_is_the_callers_or_new(sample: httpx.Client) -> None:
    """Every response has it, and so has the body of a problem."""
    given = sample.get("/nothing", headers={"X-Request-ID": "abc-123"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "abc-123"
    forged = sample.get("/health", headers={"X-Request-ID": "a b\tc"})
    assert re.fullmatch(r"[0-9a-f]{32}", forged.headers["x-request-id"])


def test_the_openapi_document_describes_errors(sample: httpx.Client) -> None:
    document = sample.get("/openapi.json").json()
    refused = document["paths"]["/query"]["post"]["responses"]["422"]["content"]
    assert refused == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in str(document)
    for name, path in document["paths"].items():
        for status, response in path.get("post", {}).get("responses", {}).items():
            expected = "application/json" if name.startswith("/v1/") else "application/problem+json"
            assert status == "200" or list(response["content"]) == [expected]
    assert {"type", "code", "request_id"} <= set(document["components"]["schemas"]["Problem"]["properties"])


def test_the_examples_of_the_openapi_document_work(sample: httpx.Client) -> None:
    """Requests that /docs offers are accepted as they are."""
    schemas = sample.get("/openapi.json").json()["components"]["schemas"]
    for example in schemas["QueryRequest"]["examples"]:
        assert ask(sample, **example)["status"] == "answered"
