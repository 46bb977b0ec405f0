"""A question, and the limits of one."""

from __future__ import annotations

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
