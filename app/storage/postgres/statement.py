"""Statements for a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

# Settings of a connection that searches.
SEARCHING = {
    # With a filter, until there are enough.
    "hnsw.iterative_scan": "strict_order",
    # Compiling takes longer than any of these searches; a plan has to know how rare the words are.
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}

# Part of a statement, and the values of its placeholders in order.
Condition = tuple[sql.Composable, list[Any]]


@dataclass(frozen=True)
class Statement:
    """A statement, and the values of its placeholders in order."""

    text: sql.Composed
    values: list[Any]
