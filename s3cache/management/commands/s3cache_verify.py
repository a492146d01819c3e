"""``manage.py s3cache_verify``: is everything as it should be?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from s3cache.db.base import DatabaseWrapper
from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.keeper.compare import verify_replica
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.keeper.verify import Finding, Remedy, verify_bucket
from s3cache.management.base import BucketCommand
from s3cache.management.keeping import WAIT
from s3cache.records import adopting
from s3cache.records.check import Kind, RecordFinding
from s3cache.records.run import record_now, verify_records_now
from s3cache.records.writing import RecordOptions

#: Packs everything anew, and deletes what nothing refers to.
MEND = KeeperOptions(pack_after=1, everything=True)


class Command(BucketCommand):
    help = (
        "Reads everything in the bucket and compares this host's replica with it. "
        "Changes nothing, unless --repair is given. The exit status is 1 if "
        "something is left that is not as it should be."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--repair",
            action="store_true",
            help="Put right what can be: packs from this host's replica, the "
            "replica from the bucket, records from the rows. Then look again.",
        )
        parser.add_argument(
            "--adopt",
            nargs="+",
            choices=[kind.value for kind in adopting.ADOPTABLE],
            default=[],
            help="Commit what somebody else has done to records: changed or added "
            "ones become rows, and rows whose records were removed are deleted. "
            "What does not fit is named and left alone.",
        )
        parser.add_argument(
            "--skip-records",
            action="store_true",
            help="Do not read the records: that takes a request for each row.",
        )

    def handle(
        self,
        *,
        database: str | None,
        repair: bool,
        adopt: Sequence[str],
        skip_records: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        kinds = [Kind(value) for value in adopt]
        shown = verbosity if not options["json"] else 0
        left: dict[str, list[Finding]] = {}
        for alias, connection in self.chosen(database).items():

            def look_again(
                alias: str = alias, connection: DatabaseWrapper = connection
            ) -> list[Finding]:
                with self.progress(f"{alias}: verifying", shown):
                    return look(connection, records=not skip_records)

            with self.about(alias):
                found = look_again()
                if kinds and found:
                    self._adopt(alias, connection, found, kinds, shown)
                    found = look_again()
                if repair and found:
                    self._tell(alias, found, shown)
                    with self.progress(f"{alias}: repairing", shown):
                        mend(connection, found)
                    found = look_again()
            left[alias] = found
            self._tell(alias, found, shown)
        if options["json"]:
            self.stdout.write(json.dumps({a: for_programs(f) for a, f in left.items()}))
        if any(left.values()):
            raise CommandError("Not everything is as it should be.", returncode=1)

    def _adopt(
        self,
        alias: str,
        connection: DatabaseWrapper,
        found: list[Finding],
        kinds: list[Kind],
        verbosity: int,
    ) -> None:
        records = [one for one in found if isinstance(one, RecordFinding)]
        adopted, refused = adopting.adopt(connection, records, kinds)
        if adopted:
            options = RecordOptions(everything=True)
            record_now(connection.replica, options, wait=WAIT)
        if verbosity:
            for key in adopted:
                self.stdout.write(f"{alias}: {key}: it is committed.")
            for key, why in refused.items():
                self.stdout.write(f"{alias}: {key}: it does not fit: {why}")

    def _tell(self, alias: str, found: list[Finding], verbosity: int) -> None:
        if not verbosity:
            return
        for one in found:
            self.stdout.write(f"{alias}: {one.key}: {one.message}")
        if not found:
            self.stdout.write(f"{alias}: everything is as it should be.")


def look(connection: DatabaseWrapper, *, records: bool = True) -> list[Finding]:
    """What is wrong with the bucket; if it is whole, with the replica too.

    And if that is what it should be, with ``records``.
    """
    replica = connection.replica
    found = replica.run(verify_bucket(replica.options.signing_keys))
    if any(one.remedy is Remedy.NONE for one in found):
        return found
    try:
        found += verify_replica(replica)
    except (LogDiverged, EntryFormatError):
        if found:
            return found  # which is why no other replica can be made
        raise
    if records and not any(one.remedy is Remedy.REBUILD for one in found):
        found += verify_records_now(replica)
    return found


def mend(connection: DatabaseWrapper, found: list[Finding]) -> None:
    """Put right what can be.

    The replica first: what is packed comes from it.
    """
    remedies = {one.remedy for one in found}
    if Remedy.REBUILD in remedies:
        connection.replica.rebuild()
    if Remedy.KEEP in remedies:
        keep_now(connection.replica, MEND, wait=WAIT)
    if Remedy.RECORD in remedies:
        record_now(connection.replica, RecordOptions(everything=True), wait=WAIT)


def for_programs(found: list[Finding]) -> list[dict[str, str]]:
    """Findings as JSON has them."""
    return [
        {"key": one.key, "message": one.message, "remedy": one.remedy.value}
        for one in found
    ]
