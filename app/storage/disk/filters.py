"""LlamaIndex's metadata filters in Qdrant's terms."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import qdrant_edge as qdrant
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from app.storage.chunks import values_of
from app.storage.disk.payloads import LABELS, label_of, may_have_label

_Build = Callable[[str, Any, Collection[str]], qdrant.Filter]


def payload_filter(filters: MetadataFilters | None, labeled: Collection[str]) -> qdrant.Filter | None:
    """Return a filter over `metadata.*`; None where there is nothing to filter.

    Args:
        labeled: the fields that are in the chunks' labels.

    Raises:
        NotImplementedError: for an operator that the engine has no match for.
    """
    if filters is None or not filters.filters:
        return None
    conditions: list[Any] = [
        _condition(part, labeled)
        if isinstance(part, MetadataFilter)
        else payload_filter(part, labeled) or qdrant.Filter()
        for part in filters.filters
    ]
    if filters.condition is FilterCondition.OR:
        return qdrant.Filter(should=conditions)
    if filters.condition is FilterCondition.NOT:
        return qdrant.Filter(must_not=conditions)
    return qdrant.Filter(must=conditions)


def _condition(part: MetadataFilter, labeled: Collection[str]) -> qdrant.Filter:
    build = _OPERATORS.get(part.operator)
    if build is None:
        raise NotImplementedError(
            f"filter operator {part.operator.value} on {part.key}: not known to this store"
        )
    return build(part.key, part.value, labeled)


def _equal(field: str, value: Any, labeled: Collection[str]) -> qdrant.Filter:
    if isinstance(value, float):
        return _between(field, gte=value, lte=value)
    if field in labeled and may_have_label(value):
        condition = qdrant.FieldCondition(LABELS, match=qdrant.MatchValue(label_of(field, value)))
    else:
        condition = qdrant.FieldCondition(_path(field), match=qdrant.MatchValue(value))
    return qdrant.Filter(must=[condition])


def _any_of(field: str, value: Any, labeled: Collection[str]) -> qdrant.Filter:
    return qdrant.Filter(
        should=[_equal(field, one, labeled) for one in values_of(value)], must=_nothing(value)
    )


def _all_of(field: str, value: Any, labeled: Collection[str]) -> qdrant.Filter:
    return qdrant.Filter(must=[_equal(field, one, labeled) for one in values_of(value)])


def _not(build: _Build) -> _Build:
    return lambda *arguments: qdrant.Filter(must_not=[build(*arguments)])


def _bound(name: str) -> _Build:
    return lambda field, value, _: _between(field, **{name: value})


def _between(field: str, **bounds: float) -> qdrant.Filter:
    return qdrant.Filter(must=[qdrant.FieldCondition(_path(field), range=qdrant.RangeFloat(**bounds))])


def _is_empty(field: str, _: Any, __: Collection[str]) -> qdrant.Filter:
    return qdrant.Filter(must=[qdrant.IsEmptyCondition(_path(field))])


def _path(field: str) -> str:
    return f"metadata.{field}"


def _nothing(value: Any) -> list[Any]:
    """Return a condition that nothing meets, for an empty list: no condition would mean everything."""
    return [] if values_of(value) else [qdrant.HasIdCondition(set())]


_OPERATORS: dict[FilterOperator, _Build] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: _not(_equal),
    FilterOperator.IN: _any_of,
    FilterOperator.NIN: _not(_any_of),
    FilterOperator.ANY: _any_of,
    FilterOperator.ALL: _all_of,
    FilterOperator.CONTAINS: _equal,
    FilterOperator.GT: _bound("gt"),
    FilterOperator.GTE: _bound("gte"),
    FilterOperator.LT: _bound("lt"),
    FilterOperator.LTE: _bound("lte"),
    FilterOperator.IS_EMPTY: _is_empty,
}
