"""The part of OpenAI's chat completions API that the service speaks.

What a client may send is used; or accepted, though it changes nothing here; or refused, because the answer
would not be what was asked for. A field that OpenAI does not know is refused, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.schemas import MAX_TOP_K, Citation, Filters, Usage

MODEL_ID = "rag-service"

# For the language model, where the client sets them.
_OPTIONS = (
    *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed"),
    *("presence_penalty", "frequency_penalty"),
)

_Text = Annotated[str, StringConstraints(strict=True)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]


class TextPart(BaseModel):
    type: Literal["text"]
    text: _Text


class ChatMessageIn(BaseModel):
    """A message. What belongs to tools is not looked at."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Text | list[TextPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ResponseFormat(BaseModel):
    type: Literal["text"]


class ChatRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
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
    messages: Annotated[list[ChatMessageIn], Field(min_length=1, max_length=2048)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: _Text | Annotated[list[_Text], Field(max_length=4)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None

    # Ours: as in /query.
    top_k: Annotated[int, Field(strict=True, ge=1, le=MAX_TOP_K)] | None = None
    filters: Filters | None = None

    # Accepted, and of no effect.
    logit_bias: Any = None
    metadata: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    tool_choice: Any = None
    user: Any = None
    verbosity: Any = None

    # Refused unless they ask for what there is.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _has_a_question(self) -> Self:
        if all(message.role != "user" for message in self.messages):
            raise ValueError("messages: there is none of the role user, whose last is the question")
        return self

    @property
    def options(self) -> dict[str, Any]:
        given = self.model_dump(include=set(_OPTIONS), exclude_none=True)
        return {name: given[name] for name in _OPTIONS if name in given}

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class UrlCitation(BaseModel):
    """A marker in the message: where it stands, and the document it refers to."""

    start_index: int
    end_index: int
    title: str
    url: str = Field(description="The document's name, percent-encoded, with `#page=` where it has pages")


class Annotation(BaseModel):
    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatMessageOut(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(BaseModel):
    index: Literal[0] = 0
    message: ChatMessageOut
    logprobs: None = None
    finish_reason: str


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage | None) -> Self:
        """Zeros where no model was asked."""
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    citations: list[Citation]


class ErrorInfo(BaseModel):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None = Field(description="The field at fault, where there is one")
    code: str = Field(description="The same codes as in problem documents")


class ErrorResponse(BaseModel):
    error: ErrorInfo
    request_id: str


class ModelInfo(BaseModel):
    id: str = MODEL_ID
    object: Literal["model"] = "model"
    created: int
    owned_by: str = MODEL_ID


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelInfo]
