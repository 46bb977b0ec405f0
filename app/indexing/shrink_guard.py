"""The guard against an index that loses many documents."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.domain.document import Document, DocumentStatus
from app.domain.errors import TooManyDocumentsLost
from app.indexing.changes import Changes


def check_shrink(
    previous: Sequence[Document], changes: Changes, indexed: Collection[str], max_shrink: float
) -> None:
    """Stop a run that would lose many documents: more often a mistake than meant.

    Args:
        indexed: names of documents that the next index has, or may have.
        max_shrink: share of the indexed documents that may go, from 0 to 1.

    Raises:
        TooManyDocumentsLost: more than this share of the documents would be gone.
    """
    new_names = dict(changes.renamed)
    had = [record.name for record in previous if record.status is DocumentStatus.INDEXED]
    lost = [name for name in had if new_names.get(name, name) not in indexed]
    if len(lost) > max_shrink * len(had):
        raise TooManyDocumentsLost(
            f"{len(lost)} of {len(had)} documents would be gone from the index, such as {lost[0]}: that is "
            f"more than MAX_SHRINK ({max_shrink:g}); if it is meant, run scripts/reindex.py --force"
        )
