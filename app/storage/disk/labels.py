"""What a chunk's metadata equals, as one list: one index of the engine for all fields.

It loads as fast as an index of one field, and while it does, the engine lets no other thread run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.storage.payloads import FIELDS

# The list's name in a payload.
LABELS = "labels"


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    return [
        label_of(field, value)
        for field in FIELDS
        for value in _values(metadata.get(field))
        if may_have_label(value)
    ]


def label_of(field: str, value: str | int) -> str:
    # A number is not the text of its digits.
    return f"{field}={json.dumps(value, ensure_ascii=False)}"


def may_have_label(value: Any) -> bool:
    """Not of a fraction, which equals what is near it, nor of nothing."""
    return type(value) in {str, int}


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
