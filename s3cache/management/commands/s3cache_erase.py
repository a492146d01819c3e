"""``manage.py s3cache_erase``: what was deleted is gone from the bucket."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from s3cache.keeper.rounds import KeeperOptions
from s3cache.log.proof import BELIEVED_FOR
from s3cache.management.keeping import KeepingCommand, Round, records_told
from s3cache.records.writing import RecordOptions

#: Entries that are younger stay: hosts rely on what they were told of the log
#: for an hour, and would not notice that an entry has come and gone.
RETAIN = 2 * BELIEVED_FOR

ERASE = KeeperOptions(pack_after=1, everything=True, retain=RETAIN, grace=0.0)


class Command(KeepingCommand):
    help = (
        "Removes what was deleted or overwritten from the bucket: all packs are "
        "written anew, old ones are deleted at once, and so are log entries that "
        "are more than two hours old, and records of rows that are gone. Hosts "
        "that are starting at this moment begin again. Versions that the bucket "
        "keeps are not touched."
    )

    def handle(self, *, database: str | None, verbosity: int, **options: Any) -> None:
        kept = self.keep(
            database,
            ERASE,
            RecordOptions(everything=True),
            told,
            verbosity=verbosity,
            as_json=options["json"],
        )
        if any(one.is_busy for one in kept.values()):
            raise CommandError("Another keeper is at work: run it again.")


def told(one: Round) -> str:
    """What is gone, and what is not yet, in one line."""
    kept = one.kept
    if kept.busy:
        return "nothing was erased."
    parts = [f"{kept.deleted} objects deleted"]
    parts += records_told(one.recorded)
    done = f"{', '.join(parts)}"
    left = kept.newest - kept.trimmed
    if left:
        return (
            f"{done}. {left} entries of the log are less than two hours old and stay; "
            f"run it again then."
        )
    return f"{done}; nothing but the newest state is left."
