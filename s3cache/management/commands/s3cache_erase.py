"""``manage.py s3cache_erase``: what was deleted is gone from the bucket."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from s3cache.keeper.rounds import KeeperOptions, Kept
from s3cache.log.proof import BELIEVED_FOR
from s3cache.management.keeping import KeepingCommand

#: Entries that are younger stay: hosts rely on what they were told of the log
#: for an hour, and would not notice that an entry has come and gone.
RETAIN = 2 * BELIEVED_FOR

ERASE = KeeperOptions(pack_after=1, everything=True, retain=RETAIN, grace=0.0)


class Command(KeepingCommand):
    help = (
        "Removes what was deleted or overwritten from the bucket: all packs are "
        "written anew, old ones are deleted at once, and so are log entries that "
        "are more than two hours old. Hosts that are starting at this moment begin "
        "again. Versions that the bucket keeps are not touched."
    )

    def handle(self, *, database: str | None, verbosity: int, **options: Any) -> None:
        kept = self.keep(
            database, ERASE, told, verbosity=verbosity, as_json=options["json"]
        )
        if any(one.busy for one in kept.values()):
            raise CommandError("Another keeper is at work: run it again.")


def told(kept: Kept) -> str:
    """What is gone, and what is not yet, in one line."""
    if kept.busy:
        return "nothing was erased."
    left = kept.newest - kept.trimmed
    if left:
        return (
            f"{kept.deleted} objects deleted. {left} entries of the log are less than "
            f"two hours old and stay; run it again then."
        )
    return f"{kept.deleted} objects deleted; nothing but the newest state is left."
