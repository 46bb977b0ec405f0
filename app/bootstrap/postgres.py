"""Put together the parts that keep indexes in PostgreSQL; without LlamaIndex, as `indexing`."""

from __future__ import annotations

from pydantic import SecretStr

from app.config.settings import Settings
from app.storage.postgres.chunk_table import Hnsw
from app.storage.postgres.database import Database
from app.storage.postgres.replica import Limits, PoolObserver
from app.storage.postgres.replicas import Replicas
from app.storage.postgres.storage import Building, PostgresStorage
from app.storage.postgres.timeouts import TIMEOUTS, DatabaseTimeouts


def make_postgres_storage(settings: Settings, timeouts: DatabaseTimeouts = TIMEOUTS) -> PostgresStorage:
    """Make the storage in the database of DATABASE_URL."""
    building = Building(
        Hnsw(settings.database.hnsw_m, settings.database.hnsw_ef_construction),
        maintenance_mb=settings.database.maintenance_mb,
    )
    return PostgresStorage(
        _primary(settings, timeouts), keep=settings.index.keep_snapshots, building=building
    )


def make_replicas(
    settings: Settings, observer: PoolObserver | None = None, timeouts: DatabaseTimeouts = TIMEOUTS
) -> Replicas:
    """Make the connections to the database and its read replicas."""
    limits = Limits(
        pool_min=settings.database.pool_min,
        pool_max=settings.database.pool_max,
        wait_s=settings.database.pool_timeout_s,
        statement_s=settings.database.statement_timeout_s,
        ef_search=settings.database.hnsw_ef_search,
    )
    replicas = [_database(settings, url, timeouts) for url in settings.database.read_urls]
    return Replicas(_primary(settings, timeouts), replicas, limits, observer)


def _primary(settings: Settings, timeouts: DatabaseTimeouts) -> Database:
    assert settings.database.url is not None  # noqa: S101 - who calls this has looked
    return _database(settings, settings.database.url, timeouts)


def _database(settings: Settings, url: SecretStr, timeouts: DatabaseTimeouts) -> Database:
    return Database(url.get_secret_value(), settings.database.schema_name, timeouts)
