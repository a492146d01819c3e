"""``manage.py s3cache_stats``: what the caches do, and what it costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from time import localtime, sleep, strftime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from s3cache.management.base import BucketCommand
from s3cache.metrics import show
from s3cache.metrics.export import as_json
from s3cache.metrics.figures import SCOPES, Advice, Money, Scope, Snapshot

#: What clears a terminal.
_CLEAR = "\x1b[2J\x1b[H"


class Command(BucketCommand):
    help = (
        "Shows what became of reads by model and action, the store requests, the "
        "caches, the replicas, and what all of that costs and saves."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--scope",
            choices=SCOPES[1:],
            default="fleet",
            help="Whose numbers (default: those of all hosts).",
        )
        parser.add_argument(
            "--watch",
            metavar="SECONDS",
            type=float,
            nargs="?",
            const=2.0,
            help="Show them again and again (default: every 2 seconds).",
        )
        parser.add_argument(
            "--reset",
            action="store_true",
            help="Count from 0 again, on this host; the history stays.",
        )

    def handle(
        self,
        *,
        database: str | None,
        scope: Scope,
        watch: float | None,
        reset: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        self.aliases(database)
        if watch is not None and not 0 < watch < threading.TIMEOUT_MAX:
            raise CommandError(f"--watch is {watch:g}, but must be above 0.")
        # So that where replicas are can be told.
        for alias, connection in self.chosen(database).items():
            with self.about(alias):
                connection.replica.position()
        if reset:
            show.reset(database=database)
            if options["json"]:
                self.stdout.write(json.dumps({"reset": True}))
            elif verbosity:
                self.stdout.write("Counting begins at 0 again; the history stays.")
            return
        while True:
            text = self._text(scope, database, as_json_text=options["json"])
            if watch is None:
                self.stdout.write(text)
                return
            # For programs a line each time.
            self.stdout.write(text if options["json"] else _CLEAR + text)
            self.stdout.flush()
            try:
                sleep(watch)
            except KeyboardInterrupt:
                return

    def _text(self, scope: Scope, database: str | None, *, as_json_text: bool) -> str:
        source = show.gather(scope)
        snapshot = show.snapshot(source, database=database)
        money = show.money(source, database=database)
        advice = show.advice(source, database=database)
        if as_json_text:
            return json.dumps(as_json(snapshot, money, advice))
        return "\n".join(self._lines(snapshot, money, advice))

    def _lines(
        self, snapshot: Snapshot, money: Money, advice: Iterable[Advice]
    ) -> Iterator[str]:
        since = strftime("%Y-%m-%d %H:%M", localtime(snapshot.since))
        yield self._heading(f"Reads since {since}, of this {snapshot.scope}")
        yield from _table(
            ("database", "model", "action", "reads", "hits", "misses", "past", "rate"),
            [
                (
                    one.database,
                    one.model,
                    f"{one.action} {one.partition}".strip(),
                    one.reads.number,
                    one.reads.answered,
                    one.reads.miss,
                    one.reads.bypass,
                    f"{one.reads.hit_rate:.0%}" if one.reads.asked else "-",
                )
                for one in snapshot.reads
            ],
        )
        yield self._heading("Store requests")
        yield from _table(
            ("database", "kind", "number", "failed", "p50 ms", "p99 ms", "bytes"),
            [
                (
                    one.database,
                    one.kind,
                    one.number,
                    one.failed,
                    f"{1000 * one.latency.percentile(50):.1f}",
                    f"{1000 * one.latency.percentile(99):.1f}",
                    one.sent + one.received,
                )
                for one in snapshot.requests
            ],
        )
        yield self._heading("Databases")
        yield from _table(
            ("database", "position", "lag", "commits", "conflicts", "retries", "bytes"),
            [
                (
                    one.database,
                    one.position,
                    one.lag,
                    one.commits,
                    one.conflicts,
                    one.retries,
                    one.replica_bytes,
                )
                for one in snapshot.databases
            ],
        )
        yield self._heading("Caches")
        yield from _table(
            ("cache", "tier", "hits", "misses", "rate", "removed", "entries", "bytes"),
            [
                (
                    one.alias,
                    one.tier or "-",
                    one.hits,
                    one.misses,
                    f"{one.hit_rate:.0%}",
                    sum(one.evictions.values()),
                    "-" if one.size is None else one.size,
                    "-" if one.memory is None else one.memory,
                )
                for one in snapshot.caches
            ],
        )
        yield self._heading("Money")
        yield (
            f"${money.spent_today:.4f} for requests today, ${money.saved_today:.4f} "
            f"saved by the cache; ${money.month:.2f} a month at this rate "
            f"({money.source})."
        )
        for one in advice:
            yield self.style.WARNING(one.message)

    def _heading(self, text: str) -> str:
        return self.style.MIGRATE_HEADING(f"\n{text}")


def _table(names: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Columns as wide as they have to be; numbers to the right."""
    cells = [names, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
