"""``manage.py s3cache_compact``: one round of the keeper, now."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import CommandParser

from s3cache.keeper.rounds import KeeperOptions
from s3cache.management.keeping import KeepingCommand, Round, records_told
from s3cache.records.writing import RecordOptions


class Command(KeepingCommand):
    help = (
        "Packs what was committed since the last time, for hosts that start anew, "
        "deletes from the log what is packed and a day old, and writes the records "
        "that are behind. Hosts that commit do that by themselves, at every 256th "
        "entry and some seconds after a commit: run it daily where they seldom get "
        "so far, or where no process should have to."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what is due, and write nothing."
        )
        parser.add_argument(
            "--everything",
            action="store_true",
            help="Write all packs anew, also those in which nothing has changed, and "
            "compare all records with their rows.",
        )

    def handle(
        self,
        *,
        database: str | None,
        dry_run: bool,
        everything: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        self.keep(
            database,
            KeeperOptions(pack_after=1, dry_run=dry_run, everything=everything),
            RecordOptions(dry_run=dry_run, everything=everything),
            partial(told, dry_run=dry_run),
            verbosity=verbosity,
            as_json=options["json"],
        )


def told(one: Round, *, dry_run: bool = False) -> str:
    """What a round did, or would do, in one line."""
    kept = one.kept
    if kept.busy:
        return "another keeper is at work; nothing was done."
    would = "would be " if dry_run else ""
    parts = [
        f"packed to entry {kept.catalog} of {kept.newest} ({kept.packs} packs)",
        f"log trimmed to {kept.trimmed}",
        f"{kept.packs_written} packs {would}written",
        f"{kept.deleted} objects {would}deleted",
    ]
    if kept.lost:
        parts.append(f"{kept.lost} packs were missing or damaged")
    if kept.waiting:
        parts.append(f"{kept.waiting} to be deleted in a day")
    parts += records_told(one.recorded)
    return ", ".join(parts) + "."
