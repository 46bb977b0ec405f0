"""The OpenAI API, asked with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from app.config.settings import Settings
from tests.fake_provider import FakeProvider, faults

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

MODEL = "rag-service"
QUESTION = "How long is parental leave?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


def client_of(service: httpx.Client) -> OpenAI:
    return OpenAI(base_url=f"{service.base_url}/v1", api_key="none", max_retries=0)


def refused(service: httpx.Client, **fields: Any) -> dict[str, Any]:
    """The error with which OpenAI's client is refused."""
    body = {"model": MODEL, "messages": ASKED} | fields
    response = service.post("/v1/chat/completions", json=body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def test_there_is_exactly_one_model(sample: httpx.Client) -> None:
    client = client_of(sample)
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_the_refusal_of_an_unknown_model_names_the_known_one(sample: httpx.Client) -> None:
    for call in (
        lambda: client_of(sample).models.retrieve("gpt-9"),
        lambda: client_of(sample).chat.completions.create(model="gpt-9", messages=ASKED),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"
        assert MODEL in str(caught.value)


def test_an_answer_has_citations_and_annotations(sample: httpx.Client) -> None:
    """Every marker in the text has an annotation with its position and the document it refers to."""
    completion = client_of(sample).chat.completions.create(model=MODEL, messages=ASKED)
    answer = sample.post("/query", json={"query": QUESTION}).json()

    message = completion.choices[0].message
    assert message.role == "assistant"
    assert message.content
    assert message.content == answer["answer"]
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model_extra is not None
    assert completion.model_extra["citations"] == answer["citations"]
    passages = {f"[{citation['marker']}]": citation for citation in answer["citations"]}
    assert message.annotations
    for annotation in message.annotations:
        cited = annotation.url_citation
        passage = passages[message.content[cited.start_index : cited.end_index]]
        assert cited.title == passage["document"]
        assert cited.url == f"{passage['document']}#page={passage['page']}"
    assert message.content.count("[") == len(message.annotations)
    assert completion.system_fingerprint == "extractive"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0


def test_a_documents_address_is_percent_encoded(settings: MakeSettings, serve: Serve) -> None:
    (settings().documents.dir / "Ä b#c?.md").write_text("Parental leave lasts 16 weeks.")
    completion = client_of(serve(settings())).chat.completions.create(model=MODEL, messages=ASKED)
    annotations = completion.choices[0].message.annotations
    assert annotations
    assert annotations[0].url_citation.url == "%C3%84%20b%23c%3F.md"


def test_a_streamed_answer_equals_the_whole_one(sample: httpx.Client) -> None:
    """The citations come with the first chunk, the text next, and the annotations with the last chunk."""
    client = client_of(sample)
    whole = client.chat.completions.create(model=MODEL, messages=ASKED)
    chunks = list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].model_extra is not None
    assert whole.model_extra is not None
    assert chunks[0].model_extra["citations"] == whole.model_extra["citations"]
    assert chunks[-1].system_fingerprint == "extractive"
    last = chunks[-1].choices[0]
    assert last.finish_reason == "stop"
    expected = [each.model_dump() for each in whole.choices[0].message.annotations or []]
    assert (last.delta.model_extra or {})["annotations"] == expected
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_ends_with_done(sample: httpx.Client) -> None:
    """Every other event is a chunk of OpenAI's API, so that its clients can read all of them."""
    body = {"model": MODEL, "messages": ASKED, "stream": True}
    lines = [line for line in sample.post("/v1/chat/completions", json=body).text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        assert json.loads(line.removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_the_asynchronous_client_works(sample: httpx.Client) -> None:
    async def ask() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=f"{sample.base_url}/v1", api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model=MODEL, messages=ASKED)
            stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(pieces)

    whole, streamed = asyncio.run(ask())
    assert whole == streamed


def test_a_stream_has_usage_only_on_request(provider: FakeProvider, openai_level: httpx.Client) -> None:
    completions = client_of(openai_level).chat.completions
    plain = list(completions.create(model=MODEL, messages=ASKED, stream=True))
    options: Any = {"include_usage": True}
    counted = list(completions.create(model=MODEL, messages=ASKED, stream=True, stream_options=options))

    assert all(chunk.usage is None for chunk in plain)
    assert all(chunk.choices for chunk in plain)
    assert counted[-1].choices == []
    assert counted[-1].usage is not None
    assert counted[-1].usage.total_tokens == 876
    assert all(chunk.usage is None for chunk in counted[:-1])


def test_model_parameters_are_passed_on(provider: FakeProvider, openai_level: httpx.Client) -> None:
    client = client_of(openai_level)
    options: dict[str, Any] = {"temperature": 0.7, "top_p": 0.5, "max_tokens": 99, "stop": ["END"], "seed": 7}
    for stream in (False, True):
        list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=stream, **options))
    client.chat.completions.create(model=MODEL, messages=ASKED, user="me", metadata={"a": "b"})

    *given, default = provider.chat.requests
    for request in given:
        assert {name: request.body[name] for name in options} == options
    assert default.body["temperature"] == 0
    assert not {"max_tokens", "user", "metadata"} & set(default.body)


def test_a_truncated_answer_has_the_finish_reason_length(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    provider.finish_reason = "length"
    completion = client_of(openai_level).chat.completions.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert completion.choices[0].finish_reason == "length"


def test_extra_fields_filter_and_limit_the_passages(sample: httpx.Client) -> None:
    """Fields that OpenAI's API does not have are sent in `extra_body`."""
    completion = client_of(sample).chat.completions.create(
        model=MODEL,
        messages=ASKED,
        extra_body={"top_k": 2, "filters": {"document": "policies/leave.pdf"}},
    )
    assert completion.model_extra is not None
    found = completion.model_extra["citations"]
    assert [citation["document"] for citation in found] == ["policies/leave.pdf"] * 2


FOLLOW_UP: list[Any] = [
    {"role": "system", "content": "Answer like a pirate."},
    {"role": "user", "content": "What is the policy on parental leave?"},
    {"role": "assistant", "content": "It is in leave.md [1]."},
    {"role": "user", "content": [{"type": "text", "text": "How many weeks is it?"}]},
]


def test_a_follow_up_is_condensed_into_a_question(provider: FakeProvider, openai_level: httpx.Client) -> None:
    """The model sees the history once, to condense the question, and retrieval gets its result."""
    provider.reply = "How many weeks does parental leave last?"
    completion = client_of(openai_level).chat.completions.create(model=MODEL, messages=FOLLOW_UP)

    rewriting, answering = provider.chat.requests
    asked = rewriting.body["messages"][-1]["content"]
    assert "user: What is the policy on parental leave?\nassistant: It is in leave.md [1]." in asked
    assert asked.endswith("Question: How many weeks is it?")
    assert [request.body["input"] for request in provider.embeddings.requests] == [[provider.reply]]
    assert answering.body["messages"][-1]["content"].endswith(f"Question: {provider.reply}")
    assert "Answer like a pirate." in answering.body["messages"][0]["content"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 2 * 876


def test_a_first_question_is_not_condensed(provider: FakeProvider, openai_level: httpx.Client) -> None:
    client_of(openai_level).chat.completions.create(model=MODEL, messages=ASKED)
    assert len(provider.chat.requests) == 1


def test_without_a_model_the_last_message_is_the_question(sample: httpx.Client) -> None:
    messages: list[Any] = [{"role": "user", "content": "What about the warranty?"}, *ASKED]
    completion = client_of(sample).chat.completions.create(model=MODEL, messages=messages)
    assert "16 weeks" in (completion.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 8001}]}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"no_such": 1}, "no_such"),
        ({"model": None}, "model"),
        ({"filters": {"author": "me"}}, "filters.author"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 10**30}, "max_tokens"),
    ],
)
def test_unsupported_and_invalid_fields_are_named(
    sample: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    error = refused(sample, **fields)
    assert error["param"] == param
    assert param in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        '"messages": [{"role": "user", "content": "a \\ud800 b"}]',
        '"messages": [{"role": "system", "content": "\\ud800"}, {"role": "user", "content": "x"}]',
        '"messages": [{"role": "user", "content": "x"}], "stop": "\\ud800"',
    ],
)
def test_text_that_cannot_be_encoded_is_a_400(sample: httpx.Client, fields: str) -> None:
    """JSON can contain half a surrogate pair, which no encoding has."""
    response = sample.post(
        "/v1/chat/completions",
        content=f'{{"model": "{MODEL}", {fields}}}',
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"model": MODEL, "messages": [{"role": "user", "content": [{}] * 50_000}]},
        {"model": MODEL, "messages": [{}] * 50_000},
        {"model": MODEL, "messages": ASKED} | {f"field{number}": 1 for number in range(20_000)},
    ],
)
def test_thousands_of_invalid_fields_get_one_short_answer(sample: httpx.Client, body: dict[str, Any]) -> None:
    """Reporting each of them would block the event loop for a second."""
    response = sample.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert len(response.content) < 1_000


def test_parameters_without_an_effect_are_accepted(sample: httpx.Client) -> None:
    """Chat UIs always send them."""
    completion = client_of(sample).chat.completions.create(
        model=MODEL,
        messages=ASKED,
        n=1,
        logprobs=False,
        tools=[],
        tool_choice="none",
        user="me",
        logit_bias={},
        response_format={"type": "text"},
        presence_penalty=0,
        store=False,
    )
    assert completion.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_provider_is_an_error_in_openais_shape(
    provider: FakeProvider, openai_level: httpx.Client, stream: bool
) -> None:
    """OpenAI's client raises it for a stream, too."""
    provider.chat.fault = faults.status(400)
    with pytest.raises(openai.APIError) as caught:
        list(client_of(openai_level).chat.completions.create(model=MODEL, messages=ASKED, stream=stream))
    assert caught.value.code == "model_unavailable"
    assert caught.value.type == "server_error"
    assert "secret inner text" not in str(caught.value.body)


def test_all_errors_below_v1_have_openais_shape(sample: httpx.Client) -> None:
    missing = sample.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    large = sample.post("/v1/chat/completions", content=b"x" * (1024 * 1024 + 1))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    assert large.json()["request_id"] == large.headers["x-request-id"]
