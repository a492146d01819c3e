"""``manage.py s3cache_clear``: results are removed from the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import (
    FieldError,
    ImproperlyConfigured,
    ValidationError,
)
from django.core.management.base import CommandError, CommandParser
from django.db.models import Model

from s3cache.facade import Facade, clear_everything
from s3cache.management.base import BucketCommand, models_called
from s3cache.warming.planning import models_in


class Command(BucketCommand):
    help = (
        "Removes results from the cache, and entries that were set by hand: of "
        "models, of one part of a partition, or of all models. What is read next is "
        "computed anew. Records that somebody else has put into the bucket are not "
        "adopted by this: `s3cache_verify --adopt` does that."
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
            "--partition",
            nargs="+",
            metavar=("NAME", "field=value"),
            help="Only results of this part: by_region region=EU",
        )
        parser.add_argument("--namespace", default="", help="Of S3CACHE['NAMESPACES'].")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say how many there are."
        )

    def handle(
        self,
        *args: str,
        labels: Sequence[str],
        partition: Sequence[str] | None,
        namespace: str,
        database: str | None,
        dry_run: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        aliases = self.aliases(database)
        models = models_called(labels)
        if partition and len(models) != 1:
            raise CommandError("--partition takes one model.")
        told: dict[str, int] = {}
        try:
            if not (models or database or namespace):
                told = clear_everything(dry_run=dry_run)
            elif not models:
                for alias in aliases:
                    with self.about(alias):
                        models += models_in(alias)
            for facade in self._facades(models, namespace, database):
                label = facade.model._meta.label
                part = None if partition is None else _part(facade, *partition)
                told[label] = facade.clear(part, dry_run=dry_run)
        except (LookupError, NotImplementedError) as error:
            raise CommandError(error.args[0]) from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except (FieldError, ImproperlyConfigured, ValueError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(told))
        elif verbosity:
            done = "would be removed" if dry_run else "removed"
            for name, number in told.items():
                self.stdout.write(f"{name}: {number} entries {done}.")
            self.stdout.write(
                "Records that somebody else has put into the bucket are not adopted "
                "by this: `s3cache_verify --adopt` does that."
            )

    def _facades(
        self, models: Sequence[type[Model]], namespace: str, database: str | None
    ) -> list[Facade]:
        found = []
        for model in dict.fromkeys(models):
            manager = model._default_manager
            facade = Facade(manager.db_manager(database) if database else manager)
            found.append(facade.namespace(namespace) if namespace else facade)
        return found


def _part(facade: Facade, name: str, *pairs: str) -> dict[str, dict[str, Any]]:
    """``by_region region=EU`` as a facade takes it."""
    fields = {field.name: field for field in facade.model._meta.concrete_fields}
    values: dict[str, Any] = {}
    for pair in pairs:
        field_name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"{pair!r} is not written as field=value.")
        field = fields.get(field_name)
        # As the field has it: "1" is a number for a field of numbers.
        values[field_name] = value if field is None else field.to_python(value)
    return {name: values}
