"""LlamaIndex's metadata filters in SQL: names come from a list, and values are bound."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from psycopg import sql
from psycopg.types.json import Jsonb

from app.storage.chunks import values_of
from app.storage.postgres.rows import storable
from app.storage.postgres.statement import Condition


def condition_of(filters: MetadataFilters | None, fields: Collection[str]) -> Condition:
    """Return a condition on the rows that are wanted: all of them, where there is nothing to filter.

    Args:
        fields: which there are.

    Raises:
        ValueError: for any other field, or what is no number where numbers are compared.
        NotImplementedError: for an operator that this store has no match for.
    """
    if filters is None or not filters.filters:
        return sql.SQL("true"), []
    parts = [
        _condition(part, fields) if isinstance(part, MetadataFilter) else condition_of(part, fields)
        for part in filters.filters
    ]
    if filters.condition is FilterCondition.OR:
        return joined(" OR ", parts)
    if filters.condition is FilterCondition.NOT:
        return _not(joined(" OR ", parts))
    return joined(" AND ", parts)


def joined(operator: str, parts: list[Condition]) -> Condition:
    """Join several conditions to one."""
    values = [value for _, some in parts for value in some]
    return sql.SQL("({})").format(sql.SQL(operator).join([part for part, _ in parts])), values


def _condition(part: MetadataFilter, fields: Collection[str]) -> Condition:
    if part.key not in fields:
        raise ValueError(f"filter on {part.key!r}: there are only {', '.join(fields)}")
    build = _OPERATORS.get(part.operator)
    if build is None:
        raise NotImplementedError(
            f"filter operator {part.operator.value} on {part.key}: not known to this store"
        )
    # The name is one of the list's, and still only a literal.
    return build(sql.SQL("metadata -> {}").format(sql.Literal(part.key)), part.value)


def _any_of(field: sql.Composable, value: Any) -> Condition:
    # What cannot be stored is equal to nothing that is.
    wanted = [Jsonb(one) for one in values_of(value) if storable(one) == one and _is_json(one)]
    return sql.SQL("({}) = ANY(%s::jsonb[])").format(field), [wanted]


def _is_json(value: Any) -> bool:
    """Return whether JSON has the value: infinity and NaN are Python's own extensions."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _all_of(field: sql.Composable, value: Any) -> Condition:
    return joined(" AND ", [_any_of(field, one) for one in values_of(value)])


def _not(condition: Condition) -> Condition:
    """Return the opposite of a condition, which is true also where the field is missing."""
    return sql.SQL("({}) IS NOT TRUE").format(condition[0]), condition[1]


def _compared(operator: str) -> Callable[[sql.Composable, Any], Condition]:
    def build(field: sql.Composable, value: Any) -> Condition:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"filter operator {operator}: only numbers are compared")
        number = sql.SQL("CASE WHEN jsonb_typeof({0}) = 'number' THEN ({0})::numeric {1} %s ELSE false END")
        return number.format(field, sql.SQL(operator)), [value]

    return build


def _is_empty(field: sql.Composable, _: Any) -> Condition:
    return sql.SQL("coalesce({}, 'null') IN ('null', '[]')").format(field), []


_OPERATORS: dict[FilterOperator, Callable[[sql.Composable, Any], Condition]] = {
    FilterOperator.EQ: _any_of,
    FilterOperator.NE: lambda field, value: _not(_any_of(field, value)),
    FilterOperator.IN: _any_of,
    FilterOperator.NIN: lambda field, value: _not(_any_of(field, value)),
    FilterOperator.ANY: _any_of,
    FilterOperator.ALL: _all_of,
    FilterOperator.CONTAINS: _any_of,
    FilterOperator.GT: _compared(">"),
    FilterOperator.GTE: _compared(">="),
    FilterOperator.LT: _compared("<"),
    FilterOperator.LTE: _compared("<="),
    FilterOperator.IS_EMPTY: _is_empty,
}
