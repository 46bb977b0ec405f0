"""With a model provider: LlamaIndex's and OpenAI's real clients against a fake over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from app.domain.errors import IndexingError
from tests.conftest import build
from tests.fake_provider import DIMENSIONS, Endpoint, FakeProvider, faults
from tests.support.serving import run_reindex, wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How long is parental leave?"}


def test_the_answer_has_the_models_text_name_and_usage(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    provider.reply = "It lasts 16 weeks [1]."
    answer = openai_level.post("/query", json=QUESTION).json()

    assert answer["answer"] == "It lasts 16 weeks [1]."
    assert answer["status"] == "answered"
    assert answer["model"] == "gpt-4o-mini"
    assert answer["usage"] == {"prompt_tokens": 812, "completion_tokens": 64}
    assert answer["citations"][0]["document"] == "leave.md"


def test_the_model_gets_the_question_and_the_numbered_passages(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """Each passage has its document and heading, so that the model can tell them apart."""
    serve(openai_settings(llm_model="my-own/model:latest")).post("/query", json=QUESTION)

    (request,) = provider.chat.requests
    assert request.body["model"] == "my-own/model:latest"
    prompt = request.body["messages"][-1]["content"]
    assert "[1] (leave.md, Leave > Parental)\nParental leave lasts 16 weeks." in prompt
    assert "[2] (travel.md, Travel)" in prompt
    assert prompt.endswith("Question: How long is parental leave?")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Sixteen [1].", "Sixteen [1]."),
        ("Sixteen [7].", "Sixteen."),
        ("Sixteen [0][1][9] weeks [12].", "Sixteen[1] weeks."),
        ("Sixteen [1, 2] and [2,8].", "Sixteen [1][2] and [2]."),
        ("No marker at all.", "No marker at all."),
    ],
)
def test_markers_that_name_no_passage_are_removed(
    provider: FakeProvider, openai_level: httpx.Client, reply: str, answer: str
) -> None:
    """Every marker that is left leads to a passage."""
    provider.reply = reply
    assert openai_level.post("/query", json=QUESTION).json()["answer"] == answer


def test_an_irrelevant_question_does_not_reach_the_model(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    answer = openai_level.post("/query", json={"query": "zzz qqq xxx"}).json()

    assert answer["status"] == "no_context"
    assert answer["usage"] is None
    assert provider.chat.requests == []


def test_retrieve_does_not_ask_the_language_model(provider: FakeProvider, openai_level: httpx.Client) -> None:
    found = openai_level.post("/retrieve", json=QUESTION).json()
    assert found["citations"][0]["document"] == "leave.md"
    assert provider.chat.requests == []


def test_headings_are_embedded_but_document_names_are_not(
    provider: FakeProvider, openai_settings: MakeSettings
) -> None:
    """The heading path gives the text its subject, and a renamed document keeps its vectors."""
    build(openai_settings())

    texts = [text for request in provider.embeddings.requests for text in request.body["input"]]
    assert "Leave > Parental\nParental leave lasts 16 weeks." in texts
    assert not any("leave.md" in text for text in texts)


def test_vectors_are_assigned_by_index_not_by_order(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """A server may return them in any order."""
    provider.embeddings.fault = faults.distorted(lambda answer: answer["data"].reverse())

    for question, document in (("parental weeks", "leave.md"), ("trains second class", "travel.md")):
        assert (
            openai_level.post("/retrieve", json={"query": question}).json()["citations"][0]["document"]
            == document
        )


def drop_last(answer: dict[str, Any]) -> None:
    answer["data"].pop()


def repeat_index(answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        item["index"] = 0


def shorten_first(answer: dict[str, Any]) -> None:
    answer["data"][0]["embedding"] = [1.0]


def spoil_with(value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(answer: dict[str, Any]) -> None:
        answer["data"][-1]["embedding"][3] = value

    return spoil


def empty(answer: dict[str, Any]) -> None:
    answer["data"] = []


def no_data(answer: dict[str, Any]) -> None:
    del answer["data"]


DISTORTIONS = [
    *(drop_last, repeat_index, shorten_first, empty, no_data),
    *(spoil_with(float("nan")), spoil_with(float("inf")), spoil_with("word"), spoil_with(None)),
]


@pytest.mark.parametrize("distort", DISTORTIONS)
def test_invalid_vectors_never_reach_an_index(
    provider: FakeProvider, openai_settings: MakeSettings, distort: Callable[[dict[str, Any]], None]
) -> None:
    """Missing, misnumbered, unequal or infinite vectors end the build, and nothing is published."""
    settings = openai_settings(embedding_retry_s=0)
    provider.embeddings.fault = faults.distorted(distort)
    with pytest.raises(IndexingError, match="embedding failed"):
        build(settings)
    assert not (settings.index.dir / "CURRENT").exists()


@pytest.mark.parametrize("distort", DISTORTIONS)
def test_an_invalid_vector_for_a_question_is_a_502(
    provider: FakeProvider, openai_level: httpx.Client, distort: Callable[[dict[str, Any]], None]
) -> None:
    provider.embeddings.fault = faults.distorted(distort)
    response = openai_level.post("/query", json=QUESTION)
    # With a single text, index 0 is right.
    if distort is not repeat_index:
        assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")


def test_vectors_of_another_length_than_the_index_are_refused(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """The provider may have replaced its model under the same name."""
    provider.embeddings.fault = faults.distorted(
        lambda answer: answer["data"][0].update(embedding=[1.0] * (DIMENSIONS + 1))
    )
    response = openai_level.post("/query", json=QUESTION)
    assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")
    assert str(DIMENSIONS) in response.json()["detail"]


@pytest.mark.parametrize("stage", ["embeddings", "chat"])
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_failing_provider_is_a_502_without_its_text(
    provider: FakeProvider,
    openai_level: httpx.Client,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    status: int,
) -> None:
    """The provider's message is only logged, and there are at most two retries."""
    provider.embeddings.requests.clear()
    endpoint: Endpoint = getattr(provider, stage)
    endpoint.fault = faults.status(status)
    with caplog.at_level(logging.WARNING):
        response = openai_level.post("/query", json=QUESTION)

    assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")
    assert "secret inner text" not in response.text
    assert "secret inner text" in caplog.text
    assert 1 <= len(endpoint.requests) <= 3


@pytest.mark.parametrize("stage", ["embeddings", "chat"])
@pytest.mark.parametrize("body", ["", "{", "[]", "{}", "null", '{"choices": []}', "<html>"])
def test_a_malformed_answer_is_a_502(
    provider: FakeProvider, openai_level: httpx.Client, stage: str, body: str
) -> None:
    getattr(provider, stage).fault = faults.body(body.encode(), content_type="application/json")
    response = openai_level.post("/query", json=QUESTION)
    assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")


def test_an_empty_answer_is_a_502(provider: FakeProvider, openai_level: httpx.Client) -> None:
    provider.reply = ""
    response = openai_level.post("/query", json=QUESTION)
    assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")


def test_too_slow_a_provider_is_a_504(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """One deadline holds for the whole request, including retries."""
    client = serve(openai_settings(request_timeout_s=0.5))
    provider.embeddings.latency_s = 60
    response = client.post("/query", json=QUESTION)
    assert (response.status_code, response.json()["code"]) == (504, "model_timeout")


def test_an_unreachable_provider_is_a_502(openai_settings: MakeSettings, serve: Serve) -> None:
    build(openai_settings())
    client = serve(openai_settings(openai_base_url="http://127.0.0.1:9/v1"))
    response = client.post("/query", json=QUESTION)
    assert (response.status_code, response.json()["code"]) == (502, "model_unavailable")
    assert client.get("/health").status_code == 200


def test_a_local_server_needs_no_key(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """OPENAI_BASE_URL is enough; the client sends a placeholder."""
    client = serve(openai_settings(openai_api_key=None))
    assert client.post("/query", json=QUESTION).json()["model"] == "gpt-4o-mini"
    assert {exchange.headers["authorization"] for exchange in provider.exchanges} == {"Bearer not-needed"}


def test_an_llm_works_with_local_embeddings(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """Many chat servers have no embedding model."""
    client = serve(openai_settings(embedding_provider="local"))
    assert client.post("/query", json=QUESTION).json()["model"] == "gpt-4o-mini"
    assert provider.embeddings.requests == []


def test_openai_embeddings_work_without_an_llm(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    client = serve(openai_settings(llm_provider="extractive"))
    answer = client.post("/query", json=QUESTION).json()
    assert answer["model"] == "extractive"
    assert "16 weeks" in answer["answer"]
    assert provider.chat.requests == []


def test_an_index_of_another_model_is_refused(openai_settings: MakeSettings, serve: Serve) -> None:
    """The detail names both models and the command that rebuilds the index."""
    build(openai_settings(embedding_provider="local"))
    client = serve(openai_settings(), ready=False)

    health = client.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "failed"
    for part in ("local/wordllama-l2-supercat", "openai/text-embedding-3-small", "make reindex"):
        assert part in health.json()["detail"]
    refused = client.post("/query", json=QUESTION)
    assert (refused.status_code, refused.json()["code"]) == (503, "index_not_ready")
    assert int(refused.headers["retry-after"]) >= 1


def test_health_does_not_show_the_providers_message(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can read it, and providers repeat parts of the key. The log has the message."""
    provider.embeddings.fault = faults.status(401, message="Incorrect API key provided: sk-planted")
    client = serve(openai_settings(), ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the failure")
    assert "sk-planted" not in client.get("/health").text + client.post("/query", json=QUESTION).text
    assert "401" in client.get("/health").json()["detail"]
    assert "sk-planted" in caplog.text


def test_a_failed_first_build_is_not_repeated_at_once(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    settings = openai_settings(embedding_batch_size=1)
    changing = iter(range(1, 100))
    provider.embeddings.fault = faults.distorted(
        lambda answer: answer["data"][0].update(embedding=[1.0] * next(changing))
    )
    client = serve(settings, ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the failure")
    sent = len(provider.embeddings.requests)
    time.sleep(0.5)  # ten times the poll
    assert len(provider.embeddings.requests) == sent


def test_reindex_shows_the_providers_message(provider: FakeProvider, openai_settings: MakeSettings) -> None:
    """An operator, unlike a client, needs it."""
    settings = openai_settings()
    provider.embeddings.fault = faults.status(401, message="your key has expired")
    done = run_reindex(
        {
            "DOCUMENTS_DIR": str(settings.documents.dir),
            "INDEX_DIR": str(settings.index.dir),
            "OPENAI_BASE_URL": str(settings.provider.base_url),
            "OPENAI_API_KEY": "sk-planted-secret",
        }
    )
    assert done.returncode == 1
    assert "your key has expired" in done.stderr
    assert "sk-planted-secret" not in done.stdout + done.stderr
    assert not (settings.index.dir / "CURRENT").exists()


def test_fifty_concurrent_queries_are_all_answered(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """They wait for the provider at the same time, so that none reaches its deadline."""
    client = serve(openai_settings(request_timeout_s=40))
    provider.embeddings.latency_s = provider.chat.latency_s = 2

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as many:
            return await asyncio.gather(*(many.post("/query", json=QUESTION) for _ in range(50)))

    answers = asyncio.run(ask_all())
    assert [answer.status_code for answer in answers] == [200] * 50
    assert {json.dumps(answer.json()["citations"]) for answer in answers} == {
        json.dumps(answers[0].json()["citations"])
    }
