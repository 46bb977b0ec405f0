"""LlamaIndex's metadata filters in Qdrant's terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as qdrant
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)


def payload_filter(filters: MetadataFilters | None) -> qdrant.Filter | None:
    """A filter over `metadata.*`; None where there is nothing to filter.

    Raises:
        NotImplementedError: for an operator that the engine has no match for.
    """
    if filters is None or not filters.filters:
        return None
    conditions: list[Any] = [
        _condition(part) if isinstance(part, MetadataFilter) else payload_filter(part) or qdrant.Filter()
        for part in filters.filters
    ]
    if filters.condition is FilterCondition.OR:
        return qdrant.Filter(should=conditions)
    if filters.condition is FilterCondition.NOT:
        return qdrant.Filter(must_not=conditions)
    return qdrant.Filter(must=conditions)


def _condition(part: MetadataFilter) -> qdrant.Filter:
    build = _OPERATORS.get(part.operator)
    if build is None:
        raise NotImplementedError(
            f"filter operator {part.operator.value} on {part.key}: not known to this store"
        )
    return build(f"metadata.{part.key}", part.value)


def _equal(key: str, value: Any) -> qdrant.Filter:
    if isinstance(value, float):
        return _between(key, gte=value, lte=value)
    return qdrant.Filter(must=[qdrant.FieldCondition(key, match=qdrant.MatchValue(value))])


def _any_of(key: str, value: Any) -> qdrant.Filter:
    return qdrant.Filter(should=[_equal(key, one) for one in _as_list(value)], must=_nothing(value))


def _all_of(key: str, value: Any) -> qdrant.Filter:
    return qdrant.Filter(must=[_equal(key, one) for one in _as_list(value)])


def _not(build: Callable[[str, Any], qdrant.Filter]) -> Callable[[str, Any], qdrant.Filter]:
    return lambda key, value: qdrant.Filter(must_not=[build(key, value)])


def _between(key: str, **bounds: float) -> qdrant.Filter:
    return qdrant.Filter(must=[qdrant.FieldCondition(key, range=qdrant.RangeFloat(**bounds))])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _nothing(value: Any) -> list[Any]:
    """Of an empty list, nothing is any: without this, no condition would mean everything."""
    return [] if _as_list(value) else [qdrant.HasIdCondition(set())]


_OPERATORS: dict[FilterOperator, Callable[[str, Any], qdrant.Filter]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: _not(_equal),
    FilterOperator.IN: _any_of,
    FilterOperator.NIN: _not(_any_of),
    FilterOperator.ANY: _any_of,
    FilterOperator.ALL: _all_of,
    FilterOperator.CONTAINS: _equal,
    FilterOperator.GT: lambda key, value: _between(key, gt=value),
    FilterOperator.GTE: lambda key, value: _between(key, gte=value),
    FilterOperator.LT: lambda key, value: _between(key, lt=value),
    FilterOperator.LTE: lambda key, value: _between(key, lte=value),
    FilterOperator.IS_EMPTY: lambda key, _: qdrant.Filter(must=[qdrant.IsEmptyCondition(key)]),
}
