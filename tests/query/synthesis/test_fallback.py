"""The language model fails, retrieval works."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from app.config.settings import Settings
from tests.fake_provider import FakeProvider, faults

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

QUESTION = {"query": "How long is parental leave?"}


def test_the_error_of_a_failing_model_points_to_retrieval(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """Retrieval does work while the model fails."""
    provider.chat.fault = faults.status(400)
    response = openai_level.post("/query", json=QUESTION)
    assert response.status_code == 502
    assert "language model" in response.json()["detail"]
    assert "/retrieve" in response.json()["detail"]
    assert openai_level.post("/retrieve", json=QUESTION).status_code == 200


def test_the_error_of_a_follow_up_points_to_retrieval(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    provider.chat.fault = faults.status(400)
    messages = [{"role": role, "content": "Hello."} for role in ("user", "assistant", "user")]
    response = openai_level.post("/v1/chat/completions", json={"model": "rag-service", "messages": messages})
    assert response.status_code == 502
    assert "/retrieve" in response.json()["error"]["message"]


def test_a_failing_embedding_does_not_point_to_retrieval(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    provider.embeddings.fault = faults.status(400)
    detail = openai_level.post("/query", json=QUESTION).json()["detail"]
    assert "embedding model" in detail
    assert "/retrieve" not in detail


def test_passages_are_quoted_instead_if_that_is_set(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """`model` shows it, and the language model answers again as soon as it works."""
    client = serve(openai_settings(degraded_answers="extractive"))
    provider.chat.fault = faults.status(400)
    fallback = client.post("/query", json=QUESTION).json()
    provider.chat.fault = None
    recovered = client.post("/query", json=QUESTION).json()

    assert (fallback["status"], fallback["model"]) == ("answered", "extractive")
    assert "Parental leave lasts 16 weeks. [1]" in fallback["answer"]
    assert fallback["usage"] is None
    assert recovered["model"] == "gpt-4o-mini"


def test_a_stream_falls_back_only_before_its_first_token(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """Half of one answer followed by another would be neither."""
    client = serve(openai_settings(degraded_answers="extractive"))
    provider.chat.fault = faults.status(400)
    fallback = client.post("/query/stream", json=QUESTION).text
    assert '"model":"extractive"' in fallback
    assert fallback.endswith("data: [DONE]\n\n")

    provider.chat.fault = faults.after(3, faults.cut)
    broken = client.post("/query/stream", json=QUESTION).text
    assert "event: error" in broken
    assert "[DONE]" not in broken
    assert "16 weeks. [1]" not in broken.split("event: citations", 1)[1].split("\n\n", 1)[1]


def test_a_follow_up_that_cannot_be_condensed_is_used_as_it_is(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    client = serve(openai_settings(degraded_answers="extractive"))
    provider.chat.fault = faults.status(400)
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": QUESTION["query"]},
    ]
    answer = client.post("/v1/chat/completions", json={"model": "rag-service", "messages": messages}).json()
    assert "16 weeks" in answer["choices"][0]["message"]["content"]
