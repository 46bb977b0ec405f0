"""Findings of the checks, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from app.config.secrets import SecretMask

# Masking shorter secrets would hide parts of words. The log has more words, and masks six characters or more.
_MIN_SECRET_CHARS = 4


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """A result of a check.

    Attributes:
        check: the name of the check, in one word.
        text: the state that was found.
        advice: the remedy; empty if none is needed.
    """

    check: str
    state: State
    text: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f": {self.advice}" if self.advice else ""
        return " ".join(f"{self.state:<5}{self.check:<11}{self.text}{advice}".splitlines())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def without(self, secrets: list[str]) -> Finding:
        mask = SecretMask(secrets, min_chars=_MIN_SECRET_CHARS)
        return replace(self, text=mask.apply(self.text), advice=mask.apply(self.advice))


def ok(check: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, State.OK, text)


def warn(check: str, text: str, advice: str = "") -> Finding:
    """Return a finding that does not keep the service from working."""
    return Finding(check, State.WARN, text, advice)


def fail(check: str, text: str, advice: str = "") -> Finding:
    """Return a finding of a problem that has to be solved."""
    return Finding(check, State.FAIL, text, advice)
