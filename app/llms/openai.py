"""Chat models of the provider, as a LlamaIndex LLM."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.llm import LLM
from pydantic import PrivateAttr

from app.domain.answer import Completed, Event, Token
from app.llms.openai_stream import ChatStream, parse_text, parse_usage
from app.provider.client import Endpoint
from app.provider.failures import ProviderFailure

# In the API's form: role and content.
Messages = list[dict[str, str]]
Options = dict[str, Any]

# Not known of local servers. LlamaIndex only uses it to check prompts that it builds itself.
_CONTEXT_WINDOW = 128_000
_MAX_BYTES = 16 * 1024 * 1024
# OpenAI's reasoning models refuse `temperature` and `max_tokens`, which others take.
_REASONING = re.compile(r"(?:.*/)?(?:o\d|gpt-5)")


class OpenAIChat(LLM):
    """Any chat model behind the provider's `chat/completions`.

    LlamaIndex's OpenAI class refuses model names it does not know, retries on top of the client's retries,
    takes a stream that breaks off for a complete one, and costs 4.6 ms a call. The service uses `create` and
    `create_stream`, which take 0.4 ms; LlamaIndex's methods are built on them.

    All of them raise ModelUnavailable if the provider fails and ModelTimeout if it is too slow; a stream also
    after its first token.

    Args:
        stream_idle_s: the longest wait for a token after the first.
    """

    model: str

    _endpoint: Endpoint = PrivateAttr()
    _stream_idle_s: float = PrivateAttr()

    def __init__(self, endpoint: Endpoint, *, stream_idle_s: float, **fields: Any) -> None:
        super().__init__(**fields)
        self._endpoint, self._stream_idle_s = endpoint, stream_idle_s

    @classmethod
    def class_name(cls) -> str:
        return "OpenAIChat"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=_CONTEXT_WINDOW, is_chat_model=True, model_name=self.model)

    async def create(self, messages: Messages, options: Options) -> Completed:
        """Return the whole answer.

        Args:
            options: further parameters of the API, such as `temperature`.
        """
        body = self._body(messages, options)
        return await self._endpoint.post(body, self._parse, max_bytes=_MAX_BYTES)

    @asynccontextmanager
    async def create_stream(
        self, messages: Messages, options: Options
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Wait for the first token, and give the tokens and then the completion.

        Leaving the context ends the request.
        """
        body = self._body(messages, options) | {"stream": True, "stream_options": {"include_usage": True}}
        with self._endpoint.call():
            stream = await self._endpoint.attempts(lambda: self._begin(body))
            try:
                yield stream
            finally:
                stream.close()

    async def _begin(self, body: dict[str, Any]) -> ChatStream:
        response = await self._endpoint.open(body)
        stream = ChatStream(response, self.model, self._stream_idle_s)
        try:
            await stream.begin()
        except BaseException:  # also a cancellation: the connection must be closed
            stream.close()
            raise
        return stream

    def _body(self, messages: Messages, options: Options) -> dict[str, Any]:
        body = {"model": self.model, "messages": messages, "temperature": 0, **options}
        if _REASONING.match(self.model):
            del body["temperature"]
            if "max_tokens" in body:
                body.setdefault("max_completion_tokens", body.pop("max_tokens"))
        return body

    def _parse(self, answer: Any) -> Completed:
        if error := answer.get("error"):  # some servers send it with the status 200
            raise ProviderFailure("sent an error", error)
        choice = answer["choices"][0]
        text = parse_text(choice["message"]["content"])
        if not text:
            raise ProviderFailure("sent an empty answer")
        usage = parse_usage(answer.get("usage"))
        return Completed(text, self.model, usage, choice.get("finish_reason") or "stop")

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        completed = await self.create(_plain(messages), kwargs)
        return _response(completed.text)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def responses() -> AsyncGenerator[ChatResponse]:
            text = ""
            async with self.create_stream(_plain(messages), kwargs) as events:
                async for event in events:
                    match event:
                        case Token():
                            text += event.text
                            yield _response(text, delta=event.text)

        return responses()

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await achat_to_completion_decorator(self.achat)(prompt, **kwargs)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        return await astream_chat_to_completion_decorator(self.astream_chat)(prompt, **kwargs)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._endpoint.run_alone(self.achat(messages, **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield all responses once the last is there: there is no event loop in which they could come."""

        async def collect() -> list[ChatResponse]:
            return [response async for response in await self.astream_chat(messages, **kwargs)]

        yield from self._endpoint.run_alone(collect())

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_to_completion_decorator(self.chat)(prompt, **kwargs)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return stream_chat_to_completion_decorator(self.stream_chat)(prompt, **kwargs)


def _plain(messages: Sequence[ChatMessage]) -> Messages:
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


def _response(text: str, delta: str | None = None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)
