"""Schemas of the HTTP API, and how they map to and from the domain's types.

A request is a pydantic model, which validates it. The response to a question is a TypedDict: pydantic
describes it in the OpenAPI document, and orjson writes it. That takes 7 us for an answer of five passages;
making pydantic models of it and writing them would take 25 us.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated, Any

import orjson
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

# Pydantic takes no TypedDict of Python's own before Python 3.12.
from typing_extensions import TypedDict

from app.domain.answer import Answer, AnswerStatus, Passage, Retrieved, SearchResult, Token
from app.domain.document import Document, DocumentStatus
from app.domain.index import Health, HealthStatus
from app.domain.query import Filter, Query

MAX_QUERY_CHARS = 8_000

MAX_TOP_K = 50

# OpenAI's API has about 40.
MAX_FIELDS = 64

# So many documents are encoded in 0.2 ms, in which no other thread can run.
_DOCUMENTS_AT_ONCE = 500


def as_list(value: Any) -> Any:
    """Return a list of one for a single value; a list and None stay as they are."""
    return value if isinstance(value, list) or value is None else [value]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The constraint makes pydantic check the text, and refuse text that is not Unicode.
_Text = Annotated[str, StringConstraints(strict=True, max_length=4096)]

# For a strict integer, which takes no text and no boolean: to JSON Schema, 5.0 is an integer.
WHOLE = BeforeValidator(_whole)

_Number = Annotated[int, Field(strict=True, ge=0, le=2**31), WHOLE]

_some = Field(min_length=1, max_length=100)

_Texts = Annotated[
    list[_Text],
    _some,
    BeforeValidator(as_list, json_schema_input_type=_Text | Annotated[list[_Text], _some]),
]

_Numbers = Annotated[
    list[_Number],
    _some,
    BeforeValidator(as_list, json_schema_input_type=_Number | Annotated[list[_Number], _some]),
]


class StrictModel(BaseModel):
    """A model that refuses unknown fields; very many of them at once, as each would cost an error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise ValueError(f"there are not as many fields as {len(data):,}")
        return data


class Filters(StrictModel):
    """Metadata that passages must have: each field equals its value, or one of a list of values."""

    document: _Texts | None = None
    format: _Texts | None = None
    page: _Numbers | None = None
    heading: _Texts | None = None

    def to_domain(self) -> tuple[Filter, ...]:
        """Return a condition for each field that is set, by the name that the stored metadata has for it."""
        values: dict[str, list[str] | list[int] | None] = {
            "document": self.document,
            "format": self.format,
            "page": self.page,
            "heading": self.heading,
        }
        return tuple(Filter(field, wanted) for field, wanted in values.items() if wanted is not None)


class QueryRequest(StrictModel):
    """A question to the documents."""

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

    def to_domain(self) -> Query:
        """Return the question that was asked."""
        return Query(self.query, self.top_k, self.filters.to_domain() if self.filters else ())


class Citation(TypedDict):
    """A passage that was found; `[marker]` in the answer refers to it."""

    marker: Annotated[int, Field(ge=1)]
    document: str
    page: int | None
    heading: str | None
    text: str
    score: float
    chunk_id: str


class Usage(TypedDict):
    """Tokens that the language model counted."""

    prompt_tokens: int
    completion_tokens: int


class RetrievalTimings(TypedDict):
    """Milliseconds."""

    embed: float
    retrieve: float
    total: float


class Timings(TypedDict):
    """Milliseconds."""

    embed: float
    retrieve: float
    generate: float
    total: float


class RetrieveResponse(TypedDict):
    """The passages for a question, the best first."""

    citations: list[Citation]
    index: str
    timings_ms: RetrievalTimings


class QueryResponse(TypedDict):
    """An answer with the passages that it was made from."""

    answer: str
    status: AnswerStatus
    sources: list[str]
    citations: list[Citation]
    model: str
    index: str
    usage: Usage | None
    timings_ms: Timings


class CitationsEvent(TypedDict):
    """The first event of a stream: the passages that the answer will be made from."""

    citations: list[Citation]
    sources: list[str]
    index: str


class TokenEvent(TypedDict):
    """A further piece of a streamed answer."""

    token: str


def citations_of(passages: Sequence[Passage]) -> list[Citation]:
    """Return the passages as the API shows them."""
    return [
        Citation(
            marker=passage.marker,
            document=passage.document,
            page=passage.page,
            heading=passage.heading,
            text=passage.text,
            score=passage.score,
            chunk_id=passage.chunk_id,
        )
        for passage in passages
    ]


def encode_search_result(result: SearchResult) -> bytes:
    """Return the JSON of `RetrieveResponse`."""
    timings = result.timings
    response = RetrieveResponse(
        citations=citations_of(result.passages),
        index=result.index,
        timings_ms=RetrievalTimings(embed=timings.embed, retrieve=timings.retrieve, total=timings.total),
    )
    return orjson.dumps(response)


def encode_retrieved(retrieved: Retrieved) -> bytes:
    """Return the JSON of `CitationsEvent`."""
    event = CitationsEvent(
        citations=citations_of(retrieved.passages), sources=retrieved.sources, index=retrieved.index
    )
    return orjson.dumps(event)


def encode_token(token: Token) -> bytes:
    """Return the JSON of `TokenEvent`."""
    return orjson.dumps(TokenEvent(token=token.text))


def encode_answer(answer: Answer) -> bytes:
    """Return the JSON of `QueryResponse`."""
    retrieved, completed = answer.retrieved, answer.completed
    usage, timings = completed.usage, completed.timings
    response = QueryResponse(
        answer=completed.text,
        status=answer.status,
        sources=retrieved.sources,
        citations=citations_of(retrieved.passages),
        model=completed.model,
        index=retrieved.index,
        usage=Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        if usage
        else None,
        timings_ms=Timings(
            embed=timings.embed, retrieve=timings.retrieve, generate=timings.generate, total=timings.total
        ),
    )
    return orjson.dumps(response)


class DocumentRecord(BaseModel):
    """A document of the served index, also one that could not be read."""

    name: str = Field(description="The path below the documents' folder")
    sha256: str | None = Field(description="Of the file's content; null where it could not be read")
    size: int = Field(description="Bytes")
    pages: int | None = Field(description="Null where the format has none")
    chunks: int
    status: DocumentStatus
    problem: str | None = Field(description="Null where the document is indexed")


class DocumentsResponse(BaseModel):
    """The documents of the served index."""

    index: str
    documents: list[DocumentRecord]


def encode_documents(index_id: str, documents: Iterable[Document]) -> bytes:
    """Return the JSON of a `DocumentsResponse`: in a fifth of the time that making its models would take."""
    records, parts = map(_document_fields, documents), []
    while some := list(islice(records, _DOCUMENTS_AT_ONCE)):
        parts.append(orjson.dumps(some)[1:-1])
    return b'{"index":%s,"documents":[%s]}' % (orjson.dumps(index_id), b",".join(parts))


def _document_fields(document: Document) -> dict[str, Any]:
    """Return the fields of a `DocumentRecord`."""
    return {
        "name": document.name,
        "sha256": document.sha256,
        "size": document.size,
        "pages": document.pages,
        "chunks": document.chunks,
        "status": document.status.value,
        "problem": document.problem,
    }


class IndexInfo(BaseModel):
    """The index that answers."""

    id: str
    documents: int
    chunks: int
    built_at: str
    embedding_model: str


class HealthResponse(BaseModel):
    """Readiness: queries are answered only where `index_ready` is true."""

    status: HealthStatus
    index_ready: bool
    index: IndexInfo | None = None
    detail: str | None = None

    @classmethod
    def of(cls, health: Health) -> HealthResponse:
        info = health.index
        index = None
        if info is not None:
            index = IndexInfo(
                id=info.id,
                documents=info.documents,
                chunks=info.chunks,
                built_at=info.built_at,
                embedding_model=info.embedding_model,
            )
        return cls(status=health.status, index_ready=health.index_ready, index=index, detail=health.detail)


class LivenessResponse(BaseModel):
    """The answer of a server that runs."""

    status: str = "ok"


class FieldProblem(BaseModel):
    """A field of a request, and what is wrong with it."""

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
