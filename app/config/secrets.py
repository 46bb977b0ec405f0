"""Secrets among the settings, and their removal from text.

A setting is secret if its type is `SecretStr`. So is a password in an address, and a word after `Bearer` or
`Basic` in a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, get_args
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

MASK = "***"
# Marks the type of a setting whose valid values are no secret, but whose invalid ones may hold a password.
MAY_HOLD_PASSWORD: Final = object()

_CREDENTIALS = re.compile(r"(?i:(?<=bearer )|(?<=basic ))[^\s\"',;}\\]+")


class SecretMask:
    """Replaces secrets in text.

    Args:
        secrets: the secret texts, as `secrets_of` returns them.
        min_chars: shorter secrets stay, because they are also parts of ordinary words.
    """

    def __init__(self, secrets: Iterable[str], *, min_chars: int) -> None:
        self._secrets = _spellings(secret for secret in secrets if len(secret) >= min_chars)

    def apply(self, text: str) -> str:
        """Return a text in which every secret, and every word after `Bearer` or `Basic`, is masked."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        # The regular expression takes 5 microseconds even if it finds nothing.
        lowered = text.lower()
        if "bearer " in lowered or "basic " in lowered:
            text = _CREDENTIALS.sub(MASK, text)
        return text


def secrets_of(settings: BaseModel) -> list[str]:
    """Return all secret values and the passwords in them, as they are and as an address spells them."""
    values = list(_secret_values(settings))
    parts = [part for value in values for part in value.split()]
    passwords = [password for part in parts if (password := _password(part))]
    return list(dict.fromkeys([*values, *parts, *passwords, *map(unquote, passwords)]))


def is_secret(field: FieldInfo) -> bool:
    """Return whether the value of a setting is a secret."""
    return SecretStr in _kinds(field.annotation)


def may_be_shown(field: FieldInfo) -> bool:
    """Return whether an invalid value of a setting may be shown to help find it."""
    return not is_secret(field) and MAY_HOLD_PASSWORD not in [*_kinds(field.annotation), *field.metadata]


def _secret_values(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from _secret_values(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _secret_values(inner)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, the types that it is made of and their metadata."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _password(text: str) -> str | None:
    try:
        return urlsplit(text).password
    except ValueError:  # not an address
        return None


def _spellings(secrets: Iterable[str]) -> list[str]:
    """Return each secret as it is, and as JSON and Python write it.

    The longest is first, because a secret may begin with another.
    """
    found = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])}
    return sorted(found, key=len, reverse=True)
