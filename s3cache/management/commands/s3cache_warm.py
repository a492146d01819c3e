"""``manage.py s3cache_warm``: results in the cache before somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.management.base import CommandError, CommandParser
from django.db import OperationalError, models
from tqdm import tqdm

from s3cache.caches import MemoryCache
from s3cache.facade import SAMPLE_SIZE, cache_of
from s3cache.management.base import BucketCommand
from s3cache.results.policy import is_kept, kept_in
from s3cache.warming.planning import models_in, steps_of_model, steps_of_query
from s3cache.warming.registry import Query, queries, query_named
from s3cache.warming.steps import Report, Step, take_steps
from s3cache.warming.traffic import MOST, steps_of_traffic


class Command(BucketCommand):
    help = (
        "Puts results into the cache before somebody asks for them: of models, of "
        "named queries, and of what was read at this hour on earlier days. What is "
        "there already is left alone. Without names: all models and all queries."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("models", nargs="*", metavar="app.Model")
        parser.add_argument(
            "--partitions", action="store_true", help="The parts of partitions, too."
        )
        parser.add_argument(
            "--sample",
            type=int,
            default=SAMPLE_SIZE,
            metavar="N",
            help=f"So many rows, and parts, at most of each (default: {SAMPLE_SIZE}).",
        )
        parser.add_argument(
            "--query", action="append", default=[], metavar="NAME", dest="names"
        )
        parser.add_argument(
            "--traffic",
            type=int,
            nargs="?",
            const=MOST,
            default=0,
            metavar="N",
            help="The N most usual reads of this hour on earlier days, if recorded.",
        )
        parser.add_argument(
            "--force", action="store_true", help="What is there already, too."
        )
        parser.add_argument("--workers", type=int, default=1, metavar="N")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would be read."
        )

    def handle(
        self,
        *labels: str,
        models: Sequence[str],
        names: Sequence[str],
        database: str | None,
        verbosity: int,
        sample: int,
        workers: int,
        **options: Any,
    ) -> None:
        aliases = self.aliases(database)
        if sample < 0 or workers < 1:
            raise CommandError("--sample must be 0 or more, and --workers 1 or more.")
        wanted = self._models(models)
        wanted_queries = self._queries(names)
        if not (wanted or wanted_queries or options["traffic"]):
            wanted_queries = queries()
            wanted = None
        self._warn_of_memory(wanted, verbosity)
        told: dict[str, Any] = {}
        failed = 0
        for alias in aliases:
            try:
                steps = self._steps(
                    alias, wanted, wanted_queries, sample, options, verbosity
                )
            except OperationalError as error:
                raise CommandError(f"{alias}: {error}") from error
            if options["dry_run"]:
                report = Report()
                for step in steps:
                    report.count(step.source, 0)
            else:
                report = self._take(alias, steps, workers, options["force"], verbosity)
            failed += report.failed
            told[alias] = asdict(report)
            if verbosity and not options["json"]:
                self._tell(alias, report, dry=options["dry_run"], verbosity=verbosity)
        if options["json"]:
            self.stdout.write(json.dumps(told))
        if failed:
            raise CommandError(f"{failed} reads failed; the log has their errors.")

    def _models(self, labels: Sequence[str]) -> list[type[models.Model]] | None:
        try:
            found = [cache_of(label).model for label in labels]
        except LookupError as error:
            raise CommandError(error.args[0]) from error
        for model in found:
            if not is_kept(model):
                raise CommandError(
                    f"Results of {model._meta.label} are not kept: S3CACHE, or its "
                    f"S3Meta, excludes it."
                )
        return found

    def _queries(self, names: Sequence[str]) -> list[Query]:
        try:
            return [query_named(name) for name in names]
        except LookupError as error:
            raise CommandError(error.args[0]) from error

    def _steps(
        self,
        alias: str,
        wanted: list[type[models.Model]] | None,
        wanted_queries: Iterable[Query],
        sample: int,
        options: dict[str, Any],
        verbosity: int,
    ) -> list[Step]:
        steps: list[Step] = []
        with self.progress(f"{alias}: looking", verbosity):
            there = models_in(alias)
            for model in there if wanted is None else wanted:
                if model._meta.concrete_model in there:
                    steps += steps_of_model(
                        model,
                        alias,
                        partitions=options["partitions"],
                        sample_size=sample,
                    )
            for query in wanted_queries:
                try:
                    steps += steps_of_query(query, [alias])
                except Exception as error:
                    # The project's own code: any error is possible.
                    raise CommandError(f"The query {query.name!r}: {error}") from error
            if options["traffic"]:
                steps += steps_of_traffic(options["traffic"], [alias])
        return steps

    def _take(
        self, alias: str, steps: list[Step], workers: int, force: bool, verbosity: int
    ) -> Report:
        with tqdm(
            total=len(steps),
            desc=f"{alias}: warming",
            unit=" reads",
            leave=False,
            disable=True if verbosity < 1 else None,
        ) as bar:
            return take_steps(
                steps, force_refresh=force, workers=workers, each=bar.update
            )

    def _tell(self, alias: str, report: Report, *, dry: bool, verbosity: int) -> None:
        if dry:
            self.stdout.write(f"{alias}: {report.reads} reads would be made.")
        else:
            self.stdout.write(
                f"{alias}: {report.stored} results were stored for {report.reads} "
                f"reads; {report.failed} failed."
            )
        for source, one in report.by_source.items():
            if dry or verbosity > 1:
                self.stdout.write(f"  {source}: {one.reads} reads, {one.stored} stored")

    def _warn_of_memory(
        self, wanted: list[type[models.Model]] | None, verbosity: int
    ) -> None:
        """Say so where nobody else will see what is warmed here."""
        kept: list[type[models.Model] | None] = [*(wanted or ())] or [None]
        for alias in sorted({kept_in(model, "").cache or "" for model in kept}):
            in_memory = alias and isinstance(caches[alias], MemoryCache | LocMemCache)
            if verbosity and in_memory:
                self.stderr.write(
                    f"CACHES[{alias!r}] is in the memory of this process, which ends: "
                    f"use S3CACHE['WARM_AT_START'], or a cache that processes share."
                )
