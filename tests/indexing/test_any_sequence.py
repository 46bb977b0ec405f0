"""Whatever is done to documents and indexes, in whatever order: what is served is what it has to be.

After a run that succeeds, that is an index as if built from nothing from the same documents; after one that
was killed or cancelled or that failed, the index that was served before; after a rollback, what that snapshot
had.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from app.bootstrap.indexing import make_indexer, make_snapshots
from app.config.settings import Settings
from app.domain.errors import (
    IndexingCancelled,
    IndexingError,
    NoDocuments,
    SnapshotNotFound,
    TooManyDocumentsLost,
)
from app.indexing.changes import Changes
from app.indexing.progress import Progress
from app.indexing.report import Report
from tests.conftest import build
from tests.support.changing_documents import ChangingDocuments
from tests.support.killed_build import DONE, KILLED, killed_build
from tests.support.settings import with_values
from tests.support.stored import Stored, assert_same_index, stored

pytestmark = pytest.mark.slow

_KEPT = 3
# The smaller one cuts the longest section into several chunks.
_CHUNK_SIZES = (1000, 120)
# Of a few documents; a number that a run does not come to disturbs nothing.
_MOST_PROGRESS = 12

# What ends otherwise cannot be read, whatever is in it.
_READABLE = {".md", ".txt"}
_NAMES = ("leave.md", "rules.txt", "site/leave.md", "site/old/PARKING.MD", "scan.pdf", "backup.tar")
_SECTIONS = (
    "Whatever stands before the first heading.\n\n",
    "# Leave\n\nParental leave lasts 16 weeks.\n\n",
    "# Leave\n\n## Unpaid\n\nUnpaid leave is agreed on with the manager.\n\n",
    "## Parking\n\nThere are forty places behind the hall.\n\n",
    "## Badges\n\nBadges are worn by all.\n\n",
    "## Keys\n\n"
    + "".join(f"The key of room {number} is at desk {number}. " for number in range(12))
    + "\n\n",
)

_names = st.sampled_from(_NAMES)
_texts = st.lists(st.sampled_from(_SECTIONS), min_size=1, max_size=4).map("".join)
_edits = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _names, _texts),
        st.tuples(st.just("write"), _names, st.sampled_from(["", None])),
        st.tuples(st.just("remove"), _names),
        st.tuples(st.just("rename"), _names, _names),
        st.tuples(st.just("copy"), _names, _names),
        st.tuples(st.just("touch"), _names),
    ),
    max_size=5,
)
_progress = st.integers(1, _MOST_PROGRESS)
_seldom = st.sampled_from([False, False, False, True])
_mostly = st.sampled_from([True, True, True, False])
_reindex = st.tuples(st.just("reindex"), _seldom, _seldom, _mostly)
_actions = st.one_of(
    _reindex,
    _reindex,
    st.tuples(st.just("cancelled_reindex"), _seldom, _progress),
    st.tuples(st.just("killed_reindex"), _seldom, _progress),
    st.tuples(st.just("roll_back"), st.none() | st.integers(0, _KEPT - 1)),
)


class References:
    """Indexes that were built from nothing, each once."""

    def __init__(self) -> None:
        self._made: dict[object, Stored] = {}

    def get(self, settings: Settings, texts: dict[str, str | None]) -> Stored:
        key = settings.chunking.size, frozenset(texts.items())
        if key not in self._made:
            anew = with_values(settings, index_dir=settings.index.dir.with_name("anew"))
            shutil.rmtree(anew.index.dir, ignore_errors=True)
            build(anew)
            self._made[key] = stored(anew.index.dir)
        return self._made[key]


class Sequence(RuleBasedStateMachine):
    """
    Attributes:
        contents: of all snapshots that were ever published, by id.
        current: the one that has to be served.
    """

    def __init__(self, folder: Path, references: References) -> None:
        super().__init__()
        self.contents: dict[str, Stored] = {}
        self.current: str | None = None
        self.references = references
        self.documents = ChangingDocuments(folder / "documents")
        self.settings = Settings(
            documents_dir=self.documents.folder,
            index_dir=folder / "index",
            chunk_size=_CHUNK_SIZES[0],
            parse_workers=1,
            # Chunks of one document come in several groups.
            embedding_batch_size=3,
            keep_snapshots=_KEPT,
        )

    @initialize(texts=st.lists(_texts, min_size=2, max_size=4), indexed=_mostly)
    def begin(self, texts: list[str], indexed: bool) -> None:
        for name, text in zip(_NAMES, texts, strict=False):
            self.documents.write(name, text)
        if indexed:
            self._check_success(build(self.settings))

    # One rule: Hypothesis leaves about half of a machine's rules out of each sequence, and these are few.
    @rule(edits=_edits, recut=_seldom, action=_actions)
    def change_and(self, edits: list[tuple[str, ...]], recut: bool, action: tuple[Any, ...]) -> None:
        for kind, *arguments in edits:
            getattr(self.documents, kind)(*arguments)
        if recut:
            size = next(size for size in _CHUNK_SIZES if size != self.settings.chunking.size)
            self.settings = with_values(self.settings, chunk_size=size)
        name, *values = action
        getattr(self, name)(*values)

    def reindex(self, planned: bool, full: bool, force: bool) -> None:
        plan = self._plan(full=full) if planned else None
        result = self._build(full=full, force=force)
        if isinstance(result, Report):
            self._check_changes(result.changes)
            assert plan is None or _told(plan) == _told(result)
            self._check_success(result)
        elif isinstance(result, NoDocuments):
            assert not self._is_readable
        else:
            assert isinstance(result, TooManyDocumentsLost)
            assert not force

    def cancelled_reindex(self, full: bool, at_progress: int) -> None:
        result = self._build(full=full, force=True, cancel_at=at_progress)
        if isinstance(result, Report):
            self._check_success(result)
        else:
            assert isinstance(result, IndexingCancelled) or not self._is_readable

    def killed_reindex(self, full: bool, at_progress: int) -> None:
        result = killed_build(self.settings, at_progress=at_progress, full=full)
        if result == DONE:
            self._check_success()
        else:
            self._check_unchanged()
            assert result == KILLED or not self._is_readable

    def roll_back(self, which: int | None) -> None:
        """To any that is kept; without a number, to the one before the served one."""
        ids, indexer = make_snapshots(self.settings).ids(), make_indexer(self.settings)
        older = [each for each in ids if self.current is not None and each < self.current]
        if ids and which is not None:
            self.current = indexer.roll_back(ids[which % len(ids)])
            assert self.current == ids[which % len(ids)]
        elif older:
            self.current = indexer.roll_back()
            assert self.current == older[-1]
        else:
            with pytest.raises(SnapshotNotFound):
                indexer.roll_back()
        self._check_unchanged()

    @property
    def _is_readable(self) -> bool:
        """Whether there is anything to make an index of."""
        texts = self.documents.texts
        return any(text and PurePosixPath(name).suffix.lower() in _READABLE for name, text in texts.items())

    def _plan(self, *, full: bool) -> Report | None:
        """What would be done; None where there is nothing at all."""
        try:
            return make_indexer(self.settings).plan(lambda _: None, Event(), full=full)
        except NoDocuments:
            assert not self.documents.texts
            return None
        finally:
            self._check_unchanged()

    def _build(self, *, full: bool, force: bool, cancel_at: int | None = None) -> Report | IndexingError:
        """What it reports; or why it failed, and then nothing is changed."""
        calls, cancelled = itertools.count(1), Event()

        def on_progress(_: Progress) -> None:
            if next(calls) == cancel_at:
                cancelled.set()

        try:
            return make_indexer(self.settings).build(on_progress, cancelled, full=full, force=force)
        except IndexingError as error:
            self._check_unchanged()
            return error

    def _check_unchanged(self) -> None:
        """Served is what has to be, as it was when it was published."""
        assert make_snapshots(self.settings).current_id() == self.current
        if self.current is not None:
            assert stored(self.settings.index.dir) == self.contents[self.current]

    def _check_success(self, report: Report | None = None) -> None:
        """Served is what the documents hold, in the newest snapshot, or in the one that was served before."""
        snapshots = make_snapshots(self.settings)
        before, self.current = self.current, snapshots.current_id()
        assert self.current is not None
        if report is not None:
            assert (report.index, report.published) == (self.current, self.current != before)
        if self.current == before:
            self._check_unchanged()
        else:
            assert self.current not in self.contents
            self.contents[self.current] = stored(self.settings.index.dir)
        ids = snapshots.ids()
        assert len(ids) <= _KEPT
        assert set(ids) <= self.contents.keys()
        reference = self.references.get(self.settings, self.documents.texts)
        assert_same_index(self.contents[self.current], reference)

    def _check_changes(self, changes: Changes) -> None:
        """A run tells each document that came, went or changed, once; a renamed one has kept its content."""
        served = [] if self.current is None else self.contents[self.current].documents
        before, here = {record.name: record.sha256 for record in served}, self.documents.hashes()
        both = here.keys() & before.keys()
        assert changes.changed == sorted(name for name in both if here[name] != before[name])
        old_names, new_names = ([pair[side] for pair in changes.renamed] for side in (0, 1))
        assert sorted(changes.added + new_names) == sorted(here.keys() - before.keys())
        assert sorted(changes.removed + old_names) == sorted(before.keys() - here.keys())
        assert all(before[old] == here[new] is not None for old, new in changes.renamed)
        if not changes.renamed:
            gone = {before[name] for name in changes.removed} - {None}
            assert gone.isdisjoint(here[name] for name in changes.added)


def _told(report: Report) -> tuple[object, ...]:
    changes = report.changes
    names = changes.added, changes.changed, changes.renamed, changes.removed
    return *names, report.documents, report.chunks, report.embedded, report.tokens


@pytest.mark.timeout(3 * 3600)
def test_any_sequence_of_changes_leaves_the_expected_index(tmp_path: Path, soak: bool) -> None:
    """With `--soak`, the sequences differ in each run."""
    references, folders = References(), (tmp_path / str(number) for number in itertools.count())

    class SequenceHere(Sequence):
        def __init__(self) -> None:
            super().__init__(next(folders), references)

    run_state_machine_as_test(
        SequenceHere,
        settings=hypothesis_settings(
            max_examples=60 if soak else 5,
            stateful_step_count=30 if soak else 8,
            derandomize=not soak,
            # A reader process takes a second to start: making a failing sequence shorter would take long.
            phases=[Phase.generate, Phase.shrink] if soak else [Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
