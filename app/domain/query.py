"""A question, with its filters and its conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on passages: a metadata field must have one of some values."""

    field: str
    values: list[str] | list[int]


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that was sent before the question.

    Attributes:
        role: `user` or `assistant`.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The rest of a chat around its question. A language model uses it; a quotation has no use for it.

    Attributes:
        history: the earlier turns, the oldest first.
        instructions: how to answer, in the client's words.
        options: further parameters for the model, by the names that its API has for them.
    """

    history: tuple[Turn, ...] = ()
    instructions: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


NO_CONVERSATION = Conversation()


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the documents.

    Attributes:
        top_k: the number of passages to find; None for the server's default.
        filters: passages must meet all of them.
    """

    text: str
    top_k: int | None = None
    filters: tuple[Filter, ...] = ()
    conversation: Conversation = NO_CONVERSATION
