"""Trials: a reindex is killed in an index directory of a known state, and what it left is checked."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.bootstrap.indexing import make_snapshots
from app.cli.reindex import DONE_WITH_PROBLEMS
from app.cli.runner import DONE
from app.config.settings import Settings
from app.storage.disk.snapshot_store import SnapshotStore
from tests.crash_tracer.layout import layout
from tests.crash_tracer.traced_reindex import Kill, Kind, Run, TracedReindex, kind_of
from tests.crash_tracer.tracer import Step, Trace
from tests.support.index_contents import Contents, read_index
from tests.support.sparse_files import copy_folder

KEPT = 2


@dataclass(frozen=True)
class Scenario:
    """A reindex, and the contents that are served before it, after it, and after one that follows.

    Attributes:
        start: the index directory that it begins with; None for none.
        before: None where nothing is served.
        steps: of a run that nothing disturbs.
        seconds: that it takes.
        left: the layout (`layout`) of what may be there after a reindex that follows.
    """

    documents: Path
    start: Path | None
    arguments: list[str]
    before: Contents | None
    after: Contents
    following: Contents
    steps: list[Step]
    seconds: float
    left: set[str]

    def kinds(self) -> Counter[Kind]:
        return Counter(kind_of(step) for step in self.steps)


@dataclass(frozen=True)
class Workshop:
    """Runs reindexes below `folder`, each with an index directory of its own.

    Attributes:
        settings: what all have in common.
    """

    folder: Path
    reindex: TracedReindex
    settings: dict[str, Any]
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def copy_of(self, start: Path | None) -> Path:
        index = self.folder / f"index-{next(self._numbers)}"
        if start is not None:
            copy_folder(start, index)
        return index

    def settings_of(self, index: Path, documents: Path) -> Settings:
        return Settings(**self.settings, documents_dir=documents, index_dir=index)

    def read(self, index: Path, documents: Path) -> Contents:
        return read_index(self.settings_of(index, documents))[1]

    def store(self, index: Path, documents: Path) -> SnapshotStore:
        return make_snapshots(self.settings_of(index, documents))

    def run(
        self,
        index: Path,
        documents: Path,
        arguments: list[str] | None = None,
        *,
        kill: Kill | None = None,
        watched: bool = False,
    ) -> Trace:
        """Reindex; see `Run`.

        Raises:
            AssertionError: it was not killed, and did not succeed.
        """
        values = self.settings | {"documents_dir": documents, "index_dir": index}
        environment = {name.upper(): str(value) for name, value in values.items()}
        log = self.folder / f"{index.name}.log"
        done = self.reindex.run(Run(str(index), environment, str(log), arguments or [], kill, watched))
        assert done.status in {DONE, DONE_WITH_PROBLEMS, None}, log.read_text()
        return done

    def scenario(
        self,
        documents: Path,
        *,
        start: Path | None,
        arguments: list[str] | None = None,
    ) -> Scenario:
        """Run a reindex that nothing disturbs, and another one."""
        before = None if start is None else self.read(start, documents)
        index = self.copy_of(start)
        done = self.run(index, documents, arguments, watched=True)
        after = self.read(index, documents)
        again = self.copy_of(index)
        self.run(again, documents)
        following = self.read(again, documents)
        left = layout(index) | layout(again)
        return Scenario(
            documents, start, arguments or [], before, after, following, done.steps, done.seconds, left
        )


def check_kill(workshop: Workshop, scenario: Scenario, kill: Kill, *, go_on: bool) -> bool:
    """Kill a reindex, and look at what it left.

    Args:
        go_on: also run the next one, to its end. Else only the writer's lock is taken, which cleans up, too.

    Returns:
        Whether it was killed before it was done.

    Raises:
        AssertionError: a promise is broken. The index directory is left for you to see.
        SnapshotDamaged: the same.
    """
    index = workshop.copy_of(scenario.start)
    done = workshop.run(index, scenario.documents, scenario.arguments, kill=kill)
    was_killed = done.status is None
    _check_old_or_new(workshop, scenario, index, was_killed=was_killed)
    store = workshop.store(index, scenario.documents)
    if go_on:
        workshop.run(index, scenario.documents)
        made = workshop.read(index, scenario.documents)
        assert made == scenario.following, f"{index}: the next run made {made}, not {scenario.following}"
        assert len(store.ids()) <= KEPT, f"{index}: more snapshots than are kept: {store.ids()}"
    else:
        with store.writer():
            pass
    # What else there is, the next run needs.
    more = {path for path in layout(index) - scenario.left if go_on or path.startswith("snapshots/")}
    assert not more, f"{index}: left over are {more}"
    shutil.rmtree(index)
    return was_killed


def _check_old_or_new(workshop: Workshop, scenario: Scenario, index: Path, *, was_killed: bool) -> None:
    """All snapshots are whole, and the one that is served is what it has to be."""
    store = workshop.store(index, scenario.documents)
    for snapshot_id in store.ids():
        store.open(snapshot_id).verify()
    current = store.current_id()
    if current is None:
        assert was_killed and scenario.before is None, f"{index}: there is no index"
        return
    served, contents = read_index(workshop.settings_of(index, scenario.documents))
    assert served == current, f"{index}: {served} is served, and CURRENT is {current}"
    is_old = scenario.start is not None and current == current_id(scenario.start)
    assert was_killed or not is_old, f"{index}: it was done, and nothing has changed"
    expected = scenario.before if is_old else scenario.after
    assert contents == expected, f"{index}: {current} holds {contents}, not {expected}"


def current_id(index: Path) -> str:
    return (index / "CURRENT").read_text().strip()
