"""``manage.py s3cache_warm``: results in the cache before somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.management.base import CommandError, CommandParser
from django.db import models
from tqdm import tqdm

from s3cache import conf
from s3cache.caches import MemoryCache
from s3cache.facade import SAMPLE_SIZE
from s3cache.management.base import BucketCommand, models_called
from s3cache.results.policy import kept_in, why_not_kept
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
        parser.add_argument(
            "labels",
            nargs="*",
            metavar="app[.Model]",
            help="Models, and apps, whose models are meant.",
        )
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
        parser.add_argument(
            "--namespace",
            default="",
            help="In another cache of the models, of S3CACHE['NAMESPACES'].",
        )
        parser.add_argument("--workers", type=int, default=1, metavar="N")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would be read."
        )

    def handle(
        self,
        *args: str,
        labels: Sequence[str],
        names: Sequence[str],
        database: str | None,
        namespace: str,
        verbosity: int,
        sample: int,
        workers: int,
        **options: Any,
    ) -> None:
        there = {}
        for alias in self.aliases(database):
            with self.about(alias):
                there[alias] = models_in(alias)
        if sample < 0 or workers < 1:
            raise CommandError("--sample must be 0 or more, and --workers 1 or more.")
        wanted: list[type[models.Model]] | None = self._models(labels, there)
        try:
            namespace = conf.namespace(namespace) if namespace else ""
            wanted_queries = [query_named(name) for name in names]
        except LookupError as error:
            raise CommandError(error.args[0]) from error
        if not (wanted or wanted_queries or options["traffic"]):
            wanted_queries = queries()
            wanted = None
        self._warn_of_memory(wanted, namespace, verbosity)
        told: dict[str, Any] = {}
        failed = 0
        for alias in there:
            mine = there[alias]
            if wanted is not None:
                mine = [one for one in wanted if one._meta.concrete_model in mine]
            with self.about(alias), self.progress(f"{alias}: looking", verbosity):
                steps = self._steps(alias, mine, wanted_queries, sample, options)
            if namespace:
                steps = [
                    replace(one, read=one.read.asking(namespace=namespace))
                    for one in steps
                ]
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

    def _models(
        self, labels: Sequence[str], there: Mapping[str, Sequence[type[models.Model]]]
    ) -> list[type[models.Model]]:
        """Those that are called so; of an app, those that are kept."""
        kept = {model for some in there.values() for model in some}
        found = []
        for label in labels:
            called = models_called([label])
            mine = [one for one in called if one._meta.concrete_model in kept]
            found += mine
            if mine:
                continue
            if "." not in label:
                raise CommandError(
                    f"No model of {label!r} has rows in {conf.listed(there)} whose "
                    f"results are kept."
                )
            why = why_not_kept(called[0])
            raise CommandError(
                f"Results of {called[0]._meta.label} are not kept: {why}."
                if why
                else f"{called[0]._meta.label} has no rows in {conf.listed(there)}."
            )
        return [*dict.fromkeys(found)]

    def _steps(
        self,
        alias: str,
        wanted: Iterable[type[models.Model]],
        wanted_queries: Iterable[Query],
        sample: int,
        options: dict[str, Any],
    ) -> list[Step]:
        steps: list[Step] = []
        for model in wanted:
            steps += steps_of_model(
                model, alias, partitions=options["partitions"], sample_size=sample
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
        self,
        wanted: list[type[models.Model]] | None,
        namespace: str,
        verbosity: int,
    ) -> None:
        """Say so where nobody else will see what is warmed here."""
        kept: list[type[models.Model] | None] = [*(wanted or ())] or [None]
        for alias in sorted({kept_in(model, namespace).cache or "" for model in kept}):
            in_memory = alias and isinstance(caches[alias], MemoryCache | LocMemCache)
            if verbosity and in_memory:
                self.stderr.write(
                    f"CACHES[{alias!r}] is in the memory of this process, which ends: "
                    f"use S3CACHE['WARM_AT_START'], or a cache that processes share."
                )
