"""Schemas of the part of OpenAI's chat completions API that the service speaks.

A field of a request is used; or accepted without effect; or refused, because the answer would not be what was
asked for. Fields that OpenAI does not know are refused, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)

from app.domain.answer import Usage
from app.domain.query import Conversation, Query, Turn
from app.http.schemas import MAX_QUERY_CHARS, MAX_TOP_K, WHOLE, Citation, Filters, StrictModel, as_list

MODEL_ID = "rag-service"

# Passed on to the language model if the client sets them.
_OPTIONS = (
    *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed"),
    *("presence_penalty", "frequency_penalty"),
)

# The length makes pydantic check the text, and refuse text that is not Unicode.
_Text = Annotated[str, StringConstraints(strict=True, max_length=2**24)]
_Tokens = Annotated[int, Field(strict=True, ge=1, le=2**31), WHOLE]
_Penalty = Annotated[float, Field(strict=True, ge=-2, le=2)]
# The largest integer that all JSON libraries read alike (RFC 8259).
_MAX_JSON_INTEGER = 2**53 - 1
_Integer = Annotated[int, Field(strict=True), WHOLE]
_Flag = Annotated[bool, Field(strict=True)]


def _text_of_parts(content: Any) -> Any:
    """Return a message's parts as one text, if all of them are text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError("must be text, or a list of parts of the type text")
    return "\n".join(part["text"] for part in content)


def _refuse(value: Any) -> Any:
    if value:
        raise ValueError("is not supported: leave it out")
    return value


def _one_answer(count: int | None) -> int | None:
    _refuse(count != 1 and count is not None)
    return count


def _text_only(wanted: Any) -> Any:
    _refuse(wanted not in (None, ["text"], {"type": "text"}))
    return wanted


_Content = Annotated[
    _Text, BeforeValidator(_text_of_parts, json_schema_input_type=str | list[dict[str, str]])
]
_Stop = Annotated[
    list[_Text],
    Field(max_length=4),
    BeforeValidator(as_list, json_schema_input_type=_Text | Annotated[list[_Text], Field(max_length=4)]),
]
_ONE: dict[str, Any] = {"enum": [None, 1]}
_Refused = Annotated[
    Any, AfterValidator(_refuse), WithJsonSchema({"enum": [None, False, 0, "", [], {}]}, mode="validation")
]
_TextOnly = Annotated[
    Any,
    AfterValidator(_text_only),
    WithJsonSchema({"enum": [None, ["text"], {"type": "text"}]}, mode="validation"),
]


class ChatMessageIn(BaseModel):
    """A message. What belongs to tools is not looked at."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Content | None = None

    @property
    def text(self) -> str:
        """The content, empty where there is none."""
        return self.content or ""


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: _Flag = False


_WITH_A_QUESTION: dict[str, Any] = {
    "contains": {"properties": {"role": {"const": "user"}}, "required": ["role", "content"]}
}


class ChatRequest(StrictModel):
    """A chat whose last user message is the question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL_ID,
                    "messages": [{"role": "user", "content": "How long is parental leave?"}],
                }
            ]
        },
    )

    model: _Text
    messages: Annotated[
        list[ChatMessageIn],
        Field(min_length=1, max_length=2048, fail_fast=True, json_schema_extra=_WITH_A_QUESTION),
    ]
    stream: _Flag | None = False
    stream_options: StreamOptions | None = None

    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: _Stop | None = None
    seed: Annotated[int, Field(strict=True, ge=-_MAX_JSON_INTEGER, le=_MAX_JSON_INTEGER), WHOLE] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None

    # The service's own fields, as in /query.
    top_k: Annotated[int, Field(strict=True, ge=1, le=MAX_TOP_K), WHOLE] | None = None
    filters: Filters | None = None

    # Accepted without effect.
    logit_bias: Any = None
    metadata: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    function_call: Any = None
    tool_choice: Any = None
    user: Any = None
    verbosity: Any = None

    # Refused unless they ask for what there is.
    n: Annotated[_Integer | None, AfterValidator(_one_answer), Field(json_schema_extra=_ONE)] = None
    response_format: _TextOnly = None
    modalities: _TextOnly = None
    logprobs: _Refused = None
    top_logprobs: _Refused = None
    tools: _Refused = None
    functions: _Refused = None

    @field_validator("messages")
    @classmethod
    def _with_a_question(cls, messages: list[ChatMessageIn]) -> list[ChatMessageIn]:
        asked = [message.text.strip() for message in messages if message.role == "user"]
        if not asked:
            raise ValueError("there is none of the role user; the last of these is the question")
        if not 1 <= len(asked[-1]) <= MAX_QUERY_CHARS:
            raise ValueError(
                f"the last user message must have 1 to {MAX_QUERY_CHARS:,} characters, "
                f"and has {len(asked[-1]):,}"
            )
        return messages

    def to_domain(self) -> Query:
        """Return the last user message as the question, and the rest of the chat as its conversation."""
        last = max(place for place, message in enumerate(self.messages) if message.role == "user")
        instructions = [message.text for message in self.messages if message.role in {"system", "developer"}]
        history = tuple(
            Turn(message.role, message.text)
            for message in self.messages[:last]
            if message.role in {"user", "assistant"} and message.text
        )
        return Query(
            text=self.messages[last].text.strip(),
            top_k=self.top_k,
            filters=self.filters.to_domain() if self.filters else (),
            conversation=Conversation(history, "\n".join(instructions).strip(), self._options()),
        )

    def _options(self) -> dict[str, Any]:
        given = self.model_dump(include=set(_OPTIONS), exclude_none=True)
        return {name: given[name] for name in _OPTIONS if name in given}

    @property
    def includes_usage(self) -> bool:
        """True if the client wants a last chunk with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class UrlCitation(BaseModel):
    """A marker in the message: where it stands, and the document it refers to."""

    start_index: int
    end_index: int
    title: str
    url: str = Field(description="The document's name, percent-encoded, with `#page=` where it has pages")


class Annotation(BaseModel):
    """An annotation of the message; all are citations."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatMessageOut(BaseModel):
    """The message that answers."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(BaseModel):
    """A choice; there is always one."""

    index: Literal[0] = 0
    message: ChatMessageOut
    logprobs: None = None
    finish_reason: str


class ChatUsage(BaseModel):
    """Tokens that the language model counted; zeros if none was asked."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage | None) -> Self:
        """Return the usage, with zeros if no language model was asked."""
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class ChatCompletion(BaseModel):
    """A whole answer to a chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    system_fingerprint: str = Field(description="The model that answered, as `model` in `/query`")
    citations: list[Citation]


class ErrorInfo(BaseModel):
    """An error in OpenAI's shape."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None = Field(description="The field at fault, where there is one")
    code: str = Field(description="The same codes as in problem documents")


class ErrorResponse(BaseModel):
    """The body of an error in OpenAI's shape."""

    error: ErrorInfo
    request_id: str


class ModelInfo(BaseModel):
    """The description of a model."""

    id: str = MODEL_ID
    object: Literal["model"] = "model"
    created: int
    owned_by: str = MODEL_ID


class ModelList(BaseModel):
    """The list of the models: there is one."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
