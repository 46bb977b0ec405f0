"""Time limits of operations that take a working database a few milliseconds.

This module does not import the driver, so that those who keep their indexes on the disk need not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatabaseTimeouts:
    """The time limits of operations other than a search, which has DB_STATEMENT_TIMEOUT_S.

    Attributes:
        connect_s: the limit for a connection; libpq takes whole seconds.
        silence_s: the limit for a statement that takes a working server a few milliseconds.
        grace_s: the time beyond its own limit after which a search is given up, because the server has not
            even said that it ended it; also the time in which a pool must close.
    """

    connect_s: int = 3
    silence_s: float = 3.0
    grace_s: float = 2.0


TIMEOUTS = DatabaseTimeouts()
