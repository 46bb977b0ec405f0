"""A reindex that is killed with SIGKILL, at whatever moment: the index is the old one or the new one.

Which steps change files is not known from the code but seen, by tracing the reindex: its own Python, the
engine's native code, its threads and reader processes. It is killed at one of each kind, with `--soak` at
every one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.domain.errors import IndexingError
from tests.crash_tracer.durability import not_flushed
from tests.crash_tracer.traced_reindex import Kill, traced_reindex
from tests.crash_tracer.tracer import reason_not_to_trace
from tests.crash_tracer.trials import KEPT, Scenario, Workshop, check_kill, current_id

# Of all trials together, over an hour where every step is taken; each run in them has a limit of its own.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

_SERVERS = min(4, os.cpu_count() or 1)
_SEED = 20261121
_WRONG = (AssertionError, IndexingError, OSError, RuntimeError)
_UNCHANGED = {
    "travel.md": "# Travel\n\nTrains are booked in second class.\n",
    "rooms/booking.md": "# Booking\n\nRooms are booked a week ahead.\n",
    "rooms/keys.txt": "Keys are kept at the reception.\n",
    "security.md": "# Security\n\n## Badges\n\nBadges are worn.\n\n## Visitors\n\nThey are met.\n",
    "broken.pdf": "not a PDF",
    "lunch.md": "# Lunch\n\nThe canteen opens at noon.\n",
}
_MOVED = "# Parking\n\nThere are forty places behind the hall.\n"
_OLDER = {**_UNCHANGED, "leave.md": "# Leave\n\nParental leave lasts 12 weeks.\n", "old.md": "Nothing yet.\n"}
_OLD = {
    **_UNCHANGED,
    "leave.md": "# Leave\n\nParental leave lasts 16 weeks.\n",
    "parking.md": _MOVED,
    "pets.md": "# Pets\n\nDogs stay at home.\n",
}
# A document is changed, one is renamed, one is removed.
_NEW = {
    **_UNCHANGED,
    "leave.md": "# Leave\n\nParental leave lasts 20 weeks.\n",
    "site/parking.md": _MOVED,
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, provider_url: str) -> Iterator[Workshop]:
    if reason := reason_not_to_trace():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("crashes").resolve()
    for name, documents in {"older": _OLDER, "old": _OLD, "new": _NEW}.items():
        for file, text in documents.items():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_text(text)
    settings = {
        # What a provider has embedded is kept on the disk, too.
        **{"openai_base_url": f"{provider_url}/v1", "llm_provider": "extractive"},
        **{"parse_workers": 1, "embedding_batch_size": 2, "keep_snapshots": KEPT},
    }
    with traced_reindex(_SERVERS, folder) as reindex:
        yield Workshop(folder, reindex, settings)


@pytest.fixture(scope="module")
def scenarios(workshop: Workshop) -> dict[str, Scenario]:
    makers = [first_build, change, rollback]
    with ThreadPoolExecutor(_SERVERS) as pool:
        made = pool.map(lambda make: make(workshop), makers)
        return {make.__name__: scenario for make, scenario in zip(makers, made, strict=True)}


def first_build(workshop: Workshop) -> Scenario:
    """There is no index yet."""
    return workshop.scenario(workshop.folder / "old", start=None)


def change(workshop: Workshop) -> Scenario:
    """There are as many snapshots as are kept, and three documents have changed since the newest."""
    start = workshop.copy_of(None)
    for name in ("older", "old"):
        workshop.run(start, workshop.folder / name)
    return workshop.scenario(workshop.folder / "new", start=start)


def rollback(workshop: Workshop) -> Scenario:
    """The snapshot before the newest is to be served again."""
    start = workshop.copy_of(None)
    for name in ("old", "new"):
        workshop.run(start, workshop.folder / name)
    return workshop.scenario(workshop.folder / "new", start=start, arguments=["--rollback"])


@pytest.fixture(params=["first_build", "change", "rollback"])
def scenario(request: pytest.FixtureRequest, scenarios: dict[str, Scenario]) -> Scenario:
    return scenarios[request.param]


def test_an_undisturbed_reindex_equals_a_build_from_nothing(
    workshop: Workshop, scenarios: dict[str, Scenario]
) -> None:
    """The expectations of the trials are therefore right."""
    built, changed = scenarios["first_build"], scenarios["change"]
    assert changed.before == built.after
    index = workshop.copy_of(None)
    workshop.run(index, changed.documents)
    assert changed.after == changed.following == workshop.read(index, changed.documents)
    assert "16 weeks" in built.after.answer
    assert "20 weeks" in changed.after.answer
    rolled_back = scenarios["rollback"]
    assert rolled_back.before == rolled_back.following == changed.after
    assert rolled_back.after == built.after


def test_a_kill_at_any_step_leaves_the_old_index_or_the_new(
    workshop: Workshop, scenario: Scenario, soak: bool
) -> None:
    """That index loads, and the next reindex succeeds and leaves nothing behind."""
    planned = kills(scenario, every=soak)
    allowed = len(planned) // 10
    never: list[str] = []
    while planned:
        was_killed = check_all(workshop, scenario, planned, go_on_every=4)
        missed = [kill for kill, hit in zip(planned, was_killed, strict=True) if not hit]
        # Threads do not come to as many steps of a kind each time, and to some not at all.
        planned = [replace(kill, occurrence=kill.occurrence // 2) for kill in missed if kill.occurrence > 1]
        never += [str(kill) for kill in missed if kill.occurrence == 1]
    assert len(never) <= allowed, never


def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(
    workshop: Workshop, scenario: Scenario, soak: bool
) -> None:
    """This includes writes of the engine to mapped memory, which are not steps."""
    chance = random.Random(_SEED)
    # Up to twice as long as it took alone: trials are made side by side.
    moments = [chance.uniform(0, 2 * scenario.seconds) for _ in range(70 if soak else 4)]
    check_all(workshop, scenario, [Kill(after_s=moment) for moment in moments], go_on_every=1)


def test_an_unserved_snapshot_does_not_displace_a_served_one(
    workshop: Workshop, scenarios: dict[str, Scenario]
) -> None:
    """A kill between the two renames of publishing leaves the served index available for a rollback."""
    changed = scenarios["change"]
    assert changed.start is not None
    index = workshop.copy_of(changed.start)
    published = next(kind for kind in changed.kinds() if kind.role.endswith(" -> snapshots/<id>"))
    workshop.run(index, changed.documents, kill=Kill(published, after=True))
    workshop.run(index, changed.documents)
    kept = workshop.store(index, changed.documents).ids()
    assert kept == [current_id(changed.start), current_id(index)]


def test_an_index_is_flushed_before_it_is_published(scenario: Scenario) -> None:
    """Not even a power cut can then lose both indexes, which a kill cannot show."""
    assert not_flushed(scenario.steps) == []


def kills(scenario: Scenario, *, every: bool) -> list[Kill]:
    """Before each step, or one of each kind; and after each that renames."""
    chance = random.Random(_SEED)
    kinds = scenario.kinds()
    if scenario.before is None and not every:
        # What was staged is removed after a kill, whatever it is: all kinds are taken once, for `change`.
        staged = [kind for kind in kinds if kind.is_in_staging]
        for kind in chance.sample(staged, len(staged) - 4):
            del kinds[kind]
    found = []
    for kind, count in kinds.items():
        for occurrence in range(1, count + 1) if every else [chance.randint(1, count)]:
            found.append(Kill(kind, occurrence))
            if kind.call.startswith("rename"):
                found.append(Kill(kind, occurrence, after=True))
    return found


def check_all(workshop: Workshop, scenario: Scenario, planned: list[Kill], *, go_on_every: int) -> list[bool]:
    """Make all trials, several at once; tells which were killed before they were done."""

    def check(number: int, kill: Kill) -> bool | str:
        try:
            return check_kill(workshop, scenario, kill, go_on=number % go_on_every == 0)
        except _WRONG as error:
            return f"killed {kill}: {error!r}"

    with ThreadPoolExecutor(_SERVERS) as pool:
        outcomes = list(pool.map(check, range(len(planned)), planned))
    wrong = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert not wrong, "\n".join(wrong)
    return [outcome is True for outcome in outcomes]
