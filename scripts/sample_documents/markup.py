"""XML helpers shared by the formats that are built without a library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.sax.saxutils import escape

from .source import Block

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def element(name: str, text: str, attributes: str = "") -> str:
    """Escape the text here, once, so that no caller can forget it."""
    return f"<{name}{' ' if attributes else ''}{attributes}>{escape(text)}</{name}>"


def bullet_runs(blocks: Iterable[Block]) -> Iterator[tuple[bool, list[Block]]]:
    """Collect neighbouring bullets: XML formats need one list element around them."""
    for is_list, run in groupby(blocks, key=lambda block: block.kind == "bullet"):
        yield is_list, list(run)
