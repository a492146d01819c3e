"""``manage.py s3cache_doctor``: look the stores of databases over."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from s3cache import conf
from s3cache.doctor import Finding, Level, examine
from s3cache.doctor.policy import smallest_policy
from s3cache.management.base import BucketCommand
from s3cache.stores import store_for
from s3cache.stores.s3 import S3Store


class Command(BucketCommand):
    help = (
        "Looks the store of each database that lives in a bucket over: what it "
        "honours, how fast it is, how the bucket is configured, and what it costs. "
        "Changes nothing. The exit status is 1 if something has to be done "
        "(--fail-level)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--hosts",
            type=int,
            default=1,
            help="How many hosts share it, for what it costs (default: 1).",
        )
        parser.add_argument(
            "--fail-level",
            choices=["WARNING", "ERROR"],
            default="ERROR",
            help="What makes the exit status 1 (default: ERROR).",
        )
        parser.add_argument(
            "--policy",
            action="store_true",
            help="Print the smallest IAM policy that suffices, and do nothing else.",
        )

    def handle(
        self,
        *,
        database: str | None,
        hosts: int,
        fail_level: str,
        policy: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        aliases = self.aliases(database)
        if hosts < 1:
            raise CommandError(f"--hosts is {hosts}, but must be at least 1.")
        if policy:
            self._print_policies(aliases)
            return
        found = {alias: self._examine(alias, hosts) for alias in aliases}
        if options["json"]:
            self.stdout.write(json.dumps(_for_programs(found)))
        else:
            for alias, findings in found.items():
                self._print(alias, findings, verbosity)
        worst = max(one.level for findings in found.values() for one in findings)
        if worst >= Level[fail_level]:
            raise CommandError("Something has to be done.", returncode=1)

    def _options(self, alias: str) -> conf.DatabaseOptions:
        return conf.DatabaseOptions.from_settings(
            alias, settings.DATABASES[alias].get("OPTIONS", {})
        )

    def _examine(self, alias: str, hosts: int) -> list[Finding]:
        with self.about(alias):
            options = self._options(alias)
            return list(examine(store_for(options.storage), options, hosts=hosts))

    def _print(self, alias: str, findings: list[Finding], verbosity: int) -> None:
        styles = {
            Level.OK: self.style.SUCCESS,
            Level.NOTE: self.style.NOTICE,
            Level.WARNING: self.style.WARNING,
            Level.ERROR: self.style.ERROR,
        }
        least = Level.WARNING if verbosity < 1 else Level.OK
        shown = [one for one in findings if one.level >= least]
        if shown:
            self.stdout.write(self.style.MIGRATE_HEADING(f"Database {alias!r}"))
        for one in shown:
            mark = styles[one.level](f"{one.level.name.lower():>8}")
            self.stdout.write(f"{mark}  {one.message}")
            if one.advice:
                self.stdout.write(f"          {one.advice}")

    def _print_policies(self, aliases: tuple[str, ...]) -> None:
        for alias in aliases:
            with self.about(alias):
                store = store_for(self._options(alias).storage)
            if not isinstance(store, S3Store):
                raise CommandError(
                    f"The database {alias!r} is in {store.name}, which needs no policy."
                )
            partition = store.client.meta.partition
            document = smallest_policy(
                store.bucket, store.location, partition=partition
            )
            self.stdout.write(json.dumps(document, indent=2))


def _for_programs(found: dict[str, list[Finding]]) -> dict[str, Any]:
    return {
        alias: [asdict(one) | {"level": one.level.name} for one in findings]
        for alias, findings in found.items()
    }
