"""What commands that run the keeper have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from s3cache.keeper.rounds import KeeperOptions, Kept
from s3cache.keeper.run import keep_now
from s3cache.management.base import BucketCommand
from s3cache.records.run import record_now
from s3cache.records.writing import Recorded, RecordOptions

#: Seconds to wait for another process of this host that does the same.
WAIT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Round:
    """What was done for one database: by the keeper, and for records."""

    kept: Kept
    recorded: Recorded

    @property
    def is_busy(self) -> bool:
        """Whether somebody else was at it."""
        return self.kept.busy or self.recorded.busy


class KeepingCommand(BucketCommand):
    """A command that runs a round of the keeper on each database.

    And brings records to where the log is.
    """

    def keep(
        self,
        database: str | None,
        how: KeeperOptions,
        records: RecordOptions,
        told: Callable[[Round], str],
        *,
        verbosity: int,
        as_json: bool,
    ) -> dict[str, Round]:
        """Run the rounds, and tell of each by ``told``, or of all as JSON."""
        kept: dict[str, Round] = {}
        for alias, connection in self.chosen(database).items():
            with self.about(alias), connection.wrap_database_errors:
                with self.progress(f"{alias}: packing", verbosity):
                    connection.catch_up()
                    packed = keep_now(connection.replica, how, wait=WAIT)
                with self.progress(f"{alias}: records", verbosity):
                    recorded = record_now(connection.replica, records, wait=WAIT)
            kept[alias] = Round(packed, recorded)
            if verbosity and not as_json:
                self.stdout.write(f"{alias}: {told(kept[alias])}")
        if as_json:
            said = {alias: for_programs(one) for alias, one in kept.items()}
            self.stdout.write(json.dumps(said))
        return kept


def for_programs(one: Round) -> dict[str, Any]:
    """What was done as JSON has it."""
    records = {**asdict(one.recorded), "backlog": one.recorded.backlog}
    return {**asdict(one.kept), "backlog": one.kept.backlog, "records": records}


def records_told(recorded: Recorded) -> list[str]:
    """What is worth saying about records, part by part."""
    if recorded.busy:
        return ["another process writes the records"]
    parts = []
    if recorded.written or recorded.removed:
        parts.append(f"{recorded.written} records written, {recorded.removed} removed")
    if recorded.backlog:
        parts.append(f"records are {recorded.backlog} entries behind")
    if recorded.foreign:
        parts.append(f"{len(recorded.foreign)} records are somebody else's")
    if recorded.unreadable:
        parts.append(f"{len(recorded.unreadable)} rows cannot be records")
    return parts
