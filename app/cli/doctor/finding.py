"""What was found, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from app.config.secrets import SecretMask

# A shorter one would hide parts of words; the log, which has more of them, begins at six.
_MIN_SECRET_CHARS = 4


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        check: what was looked at, in a word.
        text: what is so.
        advice: what to do; empty where nothing is to be done.
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
    return Finding(check, State.OK, text)


def warn(check: str, text: str, advice: str = "") -> Finding:
    return Finding(check, State.WARN, text, advice)


def fail(check: str, text: str, advice: str = "") -> Finding:
    return Finding(check, State.FAIL, text, advice)
