"""The provider's models by LlamaIndex's own methods, which the service itself does not need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_embedding
from app.config.settings import Settings
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.llms.openai import OpenAIChat
from app.provider.client import Endpoint
from app.provider.retry import RetryPolicy
from tests.fake_provider import FakeProvider, embed, faults

MakeSettings = Callable[..., Settings]

ASKED = [ChatMessage(role="user", content="How long?")]


@pytest.fixture
def llm(provider: FakeProvider, openai_settings: MakeSettings) -> OpenAIChat:
    provider.reply = "Sixteen weeks."
    return make_llm(openai_settings(), "gpt-4o-mini")


def make_llm(settings: Settings, model: str) -> OpenAIChat:
    endpoint = Endpoint(make_provider(settings), "chat/completions", "the language model")
    return OpenAIChat(endpoint, model=model, stream_idle_s=60)


def test_every_synchronous_method_gives_the_answer(llm: OpenAIChat) -> None:
    """These are chat and completion, whole and streamed."""
    assert llm.chat(ASKED).message.content == "Sixteen weeks."
    assert llm.complete("How long?").text == "Sixteen weeks."
    assert [response.delta for response in llm.stream_chat(ASKED)] == ["Sixteen", " weeks."]
    assert list(llm.stream_complete("How long?"))[-1].text == "Sixteen weeks."


def test_every_asynchronous_method_gives_the_answer(llm: OpenAIChat) -> None:
    async def ask() -> list[str | None]:
        chat = await llm.achat(ASKED)
        complete = await llm.acomplete("How long?")
        streamed = [response async for response in await llm.astream_chat(ASKED)]
        completed = [response async for response in await llm.astream_complete("How long?")]
        await llm._endpoint._client.close()
        return [chat.message.content, complete.text, streamed[-1].message.content, completed[-1].text]

    assert asyncio.run(ask()) == ["Sixteen weeks."] * 4


def test_parameters_are_passed_on(llm: OpenAIChat, provider: FakeProvider) -> None:
    llm.chat(ASKED, temperature=0.5, max_tokens=9)
    (request,) = provider.chat.requests
    assert (request.body["temperature"], request.body["max_tokens"]) == (0.5, 9)
    assert request.body["messages"] == [{"role": "user", "content": "How long?"}]


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "openai/gpt-5-nano"])
def test_reasoning_models_get_only_supported_parameters(
    provider: FakeProvider, openai_settings: MakeSettings, model: str
) -> None:
    make_llm(openai_settings(), model).chat(ASKED, max_tokens=9)
    (request,) = provider.chat.requests
    assert "temperature" not in request.body
    assert "max_tokens" not in request.body
    assert request.body["max_completion_tokens"] == 9


def test_a_failure_is_raised_as_model_unavailable(llm: OpenAIChat, provider: FakeProvider) -> None:
    provider.chat.fault = faults.status(400)
    with pytest.raises(ModelUnavailable, match="the language model answered with status 400"):
        llm.chat(ASKED)


@pytest.fixture(params=["base64", "lists"])
def _encoding(request: pytest.FixtureRequest, provider: FakeProvider) -> Iterator[None]:
    if request.param == "lists":  # as servers do that do not know the other
        provider.embeddings.fault = faults.distorted(lambda _: None)
    yield


@pytest.mark.usefixtures("_encoding")
def test_embeddings_are_read_in_either_encoding(openai_settings: MakeSettings) -> None:
    settings = openai_settings()
    embedding = make_embedding(settings, make_provider(settings))
    expected = [embed("one text"), embed("another")]
    assert embedding.get_text_embedding_batch(["one text", "another"]) == expected
    assert embedding.get_query_embedding("one text") == expected[0]


def test_a_hanging_provider_does_not_block_a_build_forever(
    provider: FakeProvider, openai_settings: MakeSettings
) -> None:
    """There is a deadline outside of requests, too."""
    settings = openai_settings()
    provider.embeddings.latency_s = 60
    embedding = make_embedding(settings, make_provider(settings), RetryPolicy(alone_s=0.2))
    with pytest.raises(ModelTimeout):
        embedding.get_text_embedding_batch(["one text"])


def test_a_client_can_be_used_in_several_event_loops(llm: OpenAIChat) -> None:
    """LlamaIndex's synchronous methods start a new loop each time."""
    for _ in range(2):
        assert asyncio.run(llm.achat(ASKED)).message.content == "Sixteen weeks."


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 1}, {"prompt_tokens": None, "completion_tokens": 2}])
def test_an_incomplete_usage_loses_no_answer(
    llm: OpenAIChat, provider: FakeProvider, usage: dict[str, Any]
) -> None:
    provider.chat.fault = faults.distorted(lambda answer: answer.update(usage=usage))
    assert llm.chat(ASKED).message.content == "Sixteen weeks."
