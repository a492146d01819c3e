"""``manage.py s3cache_flush``: send what is written behind."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from s3cache.management.base import BucketCommand


class Command(BucketCommand):
    help = (
        "Sends the commits that this host has on its disk and has not sent yet. "
        "Fails if some are left, or parked because they cannot be committed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="Send nothing; say what waits."
        )
        parser.add_argument(
            "--retry-parked",
            action="store_true",
            help="Send commits again that could not be committed.",
        )

    def handle(
        self,
        *,
        database: str | None,
        dry_run: bool,
        retry_parked: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        told: dict[str, Any] = {}
        is_bad = False
        for alias, connection in self.chosen(database).items():
            with self.about(alias):
                behind = connection.behind
            sent: dict[str, int] = {}
            try:
                if not dry_run:
                    retried = behind.outbox.retry() if retry_parked else 0
                    sent = {"retried": retried, **asdict(behind.send())}
            except (DatabaseError, sqlite3.Error) as error:
                raise CommandError(
                    f"{alias}: {error} {behind.outbox.statistics().waiting} commits "
                    f"wait, and are safe on this host."
                ) from error
            left = behind.outbox.statistics()
            parked = [
                {"id": one.id, "tables": one.tables, "error": one.error}
                for one in behind.outbox.parked()
            ]
            told[alias] = {
                "sent": sent.get("commits", 0),
                "entries": sent.get("entries", 0),
                "waiting": left.waiting,
                "lag": round(left.lag, 1),
                "parked": parked,
            }
            is_bad |= bool(parked) and not dry_run
            if verbosity and not options["json"]:
                self._say(alias, told[alias])
        if options["json"]:
            self.stdout.write(json.dumps(told))
        if is_bad:
            raise CommandError("Some commits are parked: --retry-parked tries again.")

    def _say(self, alias: str, told: dict[str, Any]) -> None:
        self.stdout.write(
            f"{alias}: {told['sent']} commits sent in {told['entries']} entries, "
            f"{told['waiting']} wait, {len(told['parked'])} are parked."
        )
        for one in told["parked"]:
            tables = ", ".join(one["tables"])
            self.stdout.write(f"  {one['id']} ({tables}): {one['error']}")
