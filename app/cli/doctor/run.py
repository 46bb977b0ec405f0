"""All checks, in an order in which a problem found by one explains those found by later ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from app.bootstrap.access import require_keys_unless_loopback
from app.cli.doctor.finding import Finding, fail, ok
from app.cli.doctor.index import check_index_on_disk
from app.cli.doctor.limits import check_rate_limits
from app.cli.doctor.machine import check_documents, check_port, check_room, check_scratch
from app.cli.doctor.models import check_models
from app.config.secrets import secrets_of
from app.config.settings import Settings, SettingsError, load_settings


def examine() -> Iterator[Finding]:
    """Run all checks with the settings from the environment or `.env`."""
    try:
        settings = load_settings()
    except SettingsError as error:
        yield fail("settings", str(error), "the other checks need valid settings")
    else:
        yield from examine_with(settings)


def examine_with(settings: Settings) -> Iterator[Finding]:
    """Yield each finding as soon as it is made, without any secret in it."""
    secrets = secrets_of(settings)
    for finding in _all(settings):
        yield finding.without(secrets)


def _all(settings: Settings) -> Iterator[Finding]:
    yield from _guarded("settings", lambda: [_check_settings(settings)])
    yield from _guarded("limits", lambda: check_rate_limits(settings))
    yield from _guarded("models", lambda: check_models(settings))
    sizes: list[int] = []
    if settings.database.url is not None:
        yield from _guarded("database", lambda: _check_database(settings))
    else:
        yield from _guarded("index", lambda: check_index_on_disk(settings, sizes.append))
    yield from _guarded("documents", lambda: [check_documents(settings)])
    yield from _guarded("disk", lambda: [check_room(settings, sum(sizes))])
    yield from _guarded("scratch", lambda: [check_scratch(settings, sum(sizes))])
    yield from _guarded("port", lambda: [check_port(settings)])


def _guarded(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - an error in one check must not keep the others from running
        yield fail(check, f"the check itself failed: {type(error).__name__}: {error}")


def _check_settings(settings: Settings) -> Finding:
    try:
        keys = require_keys_unless_loopback(settings)
    except SettingsError as error:
        return fail("settings", str(error))
    return ok(
        "settings", "all are valid; " + ("requests need an API key" if keys else "requests need no API key")
    )


def _check_database(settings: Settings) -> Iterator[Finding]:
    # The driver takes 0.2 s to import, and is not needed for an index on disk.
    from app.cli.doctor.database import check_database  # noqa: PLC0415

    return check_database(settings)
