"""The times of the servers and commands under test."""

from __future__ import annotations

from dataclasses import replace

from app.bootstrap.timing import Timing
from app.storage.postgres.timeouts import DatabaseTimeouts

# However slow the machine is, a database that is there is there.
PATIENT = Timing(database=DatabaseTimeouts(connect_s=60, silence_s=60))

# It is the database that ends a search that takes too long, however late it comes to that.
ENDED_BY_THE_DATABASE = replace(PATIENT, database=replace(PATIENT.database, grace_s=60))
