"""What goes over HTTP."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

MAX_QUERY_CHARS = 8_000
MAX_TOP_K = 50
# OpenAI's API has about 40.
MAX_FIELDS = 64


def as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The constraint makes pydantic look at the text, and refuse what is no Unicode.
_Text = Annotated[str, StringConstraints(strict=True, max_length=4096)]
# Of a strict integer, which takes no text and no boolean: 5.0 is one to JSON Schema.
WHOLE = BeforeValidator(_whole)
_Number = Annotated[int, Field(strict=True, ge=0, le=2**31), WHOLE]

_some = Field(min_length=1, max_length=100)
Texts = Annotated[
    list[_Text],
    _some,
    BeforeValidator(as_list, json_schema_input_type=_Text | Annotated[list[_Text], _some]),
]
Numbers = Annotated[
    list[_Number],
    _some,
    BeforeValidator(as_list, json_schema_input_type=_Number | Annotated[list[_Number], _some]),
]


class StrictModel(BaseModel):
    """Refuses fields that it does not know; very many at once, as each would cost an error of its own."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise ValueError(f"there are not as many fields as {len(data):,}")
        return data


class Filters(StrictModel):
    """Metadata that passages must have: each field equals its value, or one of a list of values."""

    document: Texts | None = None
    format: Texts | None = None
    page: Numbers | None = None
    heading: Texts | None = None


class QueryRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "How long is parental leave?"},
                {
                    "query": "How long is parental leave?",
                    "top_k": 3,
                    "filters": {"document": "policies/leave.pdf"},
                },
            ]
        },
    )

    query: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS)
    ] = Field(
        validation_alias=AliasChoices("query", "question"),
        description="The question. `question` is accepted as its name, too.",
        json_schema_extra={"pattern": r"\S"},
    )
    top_k: Annotated[int, Field(strict=True, ge=1, le=MAX_TOP_K), WHOLE] | None = Field(
        default=None,
        validation_alias=AliasChoices("top_k", "k"),
        description="How many passages; the server's `TOP_K` by default. `k` is accepted as its name, too.",
    )
    filters: Filters | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, data: Any) -> Any:
        for names in (("query", "question"), ("top_k", "k")):
            if isinstance(data, dict) and all(name in data for name in names):
                raise ValueError(f"{names[0]} and {names[1]} are two names of one field: give one of them")
        return data


class Citation(BaseModel):
    """A passage that was found; `[marker]` in the answer refers to it."""

    marker: int = Field(ge=1)
    document: str
    page: int | None
    heading: str | None
    text: str
    score: float
    chunk_id: str


class AnswerStatus(StrEnum):
    ANSWERED = "answered"
    NO_CONTEXT = "no_context"


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class CitationsEvent(BaseModel):
    """The first event of a stream: what the answer will rest on."""

    citations: list[Citation]
    sources: list[str]
    index: str


class RetrievalTimings(BaseModel):
    """Milliseconds."""

    embed: float
    retrieve: float
    total: float


class Timings(BaseModel):
    """Milliseconds."""

    embed: float
    retrieve: float
    generate: float
    total: float


class RetrieveResponse(BaseModel):
    citations: list[Citation]
    index: str
    timings_ms: RetrievalTimings


class QueryResponse(BaseModel):
    answer: str
    status: AnswerStatus
    sources: list[str]
    citations: list[Citation]
    model: str
    index: str
    usage: Usage | None
    timings_ms: Timings


class DocumentStatus(StrEnum):
    """What became of a document; all but `indexed` say why nothing of it can be found."""

    INDEXED = "indexed"
    EMPTY = "empty"
    NEEDS_OCR = "needs_ocr"
    ENCRYPTED = "encrypted"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    OUTSIDE = "outside"


class DocumentRecord(BaseModel):
    """A document of an index: a line of `documents.jsonl`, an element of `GET /documents`."""

    name: str = Field(description="The path below the documents' folder")
    sha256: str | None = Field(description="Of the file's content; null where it could not be read")
    size: int = Field(description="Bytes")
    pages: int | None = Field(description="Null where the format has none")
    chunks: int
    status: DocumentStatus
    problem: str | None = Field(description="Null where the document is indexed")


class DocumentsResponse(BaseModel):
    index: str
    documents: list[DocumentRecord]


class IndexInfo(BaseModel):
    id: str
    documents: int
    chunks: int
    built_at: str
    embedding_model: str


class HealthStatus(StrEnum):
    OK = "ok"
    STARTING = "starting"
    BUILDING = "building"
    FAILED = "failed"
    DRAINING = "draining"


class HealthResponse(BaseModel):
    status: HealthStatus
    index_ready: bool
    index: IndexInfo | None = None
    detail: str | None = None


class LivenessResponse(BaseModel):
    status: str = "ok"


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with a code for programs and the request's id."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
