"""Validators of single settings: each returns the value to keep, or raises a ValueError."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.config.api_key_entries import hashed, parse_keys
from app.config.networks import parse_networks

_DATABASE_ADDRESS = (
    "must be an address such as postgresql://user:password@host:5432/database, with special characters "
    "of the password percent-encoded"
)

# The moving window stores a record of each request.
_MAX_RATE = 100_000


def checked_web_address(value: str) -> str:
    """Check the address of a model provider, which may not contain a password."""
    return _address(value, "http://localhost:11434/v1", "OPENAI_API_KEY")


def checked_collector_address(value: str) -> str:
    """Check the address of an OTLP collector, which may not contain a password."""
    return _address(value, "http://localhost:4318", "OTEL_EXPORTER_OTLP_HEADERS")


def _address(value: str, example: str, place_of_keys: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be an address such as {example}")
    if parts.username or parts.password:
        raise ValueError(f"must not contain a password; a key belongs in {place_of_keys}")
    return value


def split_addresses(value: object) -> object:
    """Split a text at its blanks, and leave anything else to pydantic."""
    if value is None:
        return ()
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return tuple(text.split()) if isinstance(text, str) else text


def checked_database_address(value: SecretStr) -> SecretStr:
    """Check an address as libpq understands it.

    A password with a character that would have to be encoded is taken for the host, the port or the
    database. The driver's errors would then show a part of it, so the message does not include them.
    """
    address = value.get_secret_value()
    # The driver takes 0.15 s to import, and is not needed for an index on disk.
    from psycopg import Error, conninfo  # noqa: PLC0415

    if not address.startswith(("postgresql://", "postgres://")):
        raise ValueError(_DATABASE_ADDRESS)
    try:
        parts = conninfo.conninfo_to_dict(address)
    except Error:
        raise ValueError(_DATABASE_ADDRESS) from None
    host, port, database = (str(parts.get(name) or "") for name in ("host", "port", "dbname"))
    if "@" in host + database or re.search(r"[^\d,]", port) or " " in address.strip():
        raise ValueError(_DATABASE_ADDRESS)
    return value


def checked_api_keys(value: SecretStr) -> SecretStr:
    """Return the keys as hashes, so that the keys themselves are not kept."""
    names = parse_keys(value.get_secret_value())
    if not names:
        raise ValueError("there is no key in it")
    return SecretStr(hashed(names))


def checked_rate_limit(value: str | None) -> str | None:
    """Check that a value is one limit, such as `60/minute`; return None if it is empty."""
    if not value:
        return None
    # Its import takes 0.1 s, and is not needed without a limit.
    from limits import parse_many  # noqa: PLC0415

    try:
        limits = parse_many(value)
    except ValueError:
        limits = []
    if len(limits) != 1 or not 1 <= limits[0].amount <= _MAX_RATE:
        raise ValueError(f"must be one limit such as 60/minute, of 1 to {_MAX_RATE} requests")
    return value


def checked_rate_limit_storage(value: SecretStr) -> SecretStr:
    """Check the address of a store of counts, which is `memory://` or a Redis."""
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in {"memory", "redis", "rediss"} or (parts.scheme != "memory" and not parts.hostname):
        raise ValueError("must be memory:// or an address such as redis://:password@host:6379/0")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port must be a number up to 65535") from None
    return value


def checked_networks(value: str) -> str:
    """Check that a value consists of IP addresses and networks."""
    parse_networks(value)
    return value


def checked_origins(value: str) -> str:
    """Check origins, and return them separated by single blanks."""
    origins = value.replace(",", " ").split()
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in {"http", "https"} or origin.count("/") != 2):
            raise ValueError("must be * or origins such as https://app.example.com, without a path")
    return " ".join(origins)
