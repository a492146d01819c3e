"""``manage.py s3cache_verify``: is everything as it should be?"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import OperationalError

from s3cache.db.base import DatabaseWrapper
from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.keeper.compare import verify_replica
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.keeper.verify import Finding, Remedy, verify_bucket
from s3cache.management.base import BucketCommand
from s3cache.management.keeping import WAIT

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
            help="Put right what can be: packs from this host's replica, or the "
            "replica from the bucket. Then look again.",
        )

    def handle(
        self, *, database: str | None, repair: bool, verbosity: int, **options: Any
    ) -> None:
        left: dict[str, list[Finding]] = {}
        for alias, connection in self.chosen(database).items():
            try:
                found = look(connection)
                if repair and found:
                    self._tell(alias, found, verbosity if not options["json"] else 0)
                    mend(connection, found)
                    found = look(connection)
            except OperationalError as error:
                raise CommandError(f"{alias}: {error}") from error
            left[alias] = found
            if not options["json"]:
                self._tell(alias, found, verbosity)
        if options["json"]:
            self.stdout.write(json.dumps({a: for_programs(f) for a, f in left.items()}))
        if any(left.values()):
            raise CommandError("Not everything is as it should be.", returncode=1)

    def _tell(self, alias: str, found: list[Finding], verbosity: int) -> None:
        if not verbosity:
            return
        for one in found:
            self.stdout.write(f"{alias}: {one.key}: {one.message}")
        if not found:
            self.stdout.write(f"{alias}: everything is as it should be.")


def look(connection: DatabaseWrapper) -> list[Finding]:
    """What is wrong with the bucket; if it is whole, with the replica too."""
    replica = connection.replica
    found = replica.run(verify_bucket(replica.options.signing_keys))
    if any(one.remedy is Remedy.NONE for one in found):
        return found
    try:
        return [*found, *verify_replica(replica)]
    except (LogDiverged, EntryFormatError):
        if found:
            return found  # which is why no other replica can be made
        raise


def mend(connection: DatabaseWrapper, found: list[Finding]) -> None:
    """Put right what can be.

    The replica first: what is packed comes from it.
    """
    remedies = {one.remedy for one in found}
    if Remedy.REBUILD in remedies:
        connection.replica.rebuild()
    if Remedy.KEEP in remedies:
        keep_now(connection.replica, MEND, wait=WAIT)


def for_programs(found: list[Finding]) -> list[dict[str, str]]:
    """Findings as JSON has them."""
    return [
        {"key": one.key, "message": one.message, "remedy": one.remedy.value}
        for one in found
    ]
