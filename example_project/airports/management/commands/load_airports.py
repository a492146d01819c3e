"""Fill the catalogue with the airports of the package ``airportsdata``."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError
from tqdm import tqdm

from example_project.airports import loading


class Command(BaseCommand):
    help = (
        "Adds the airports, countries and time zones of the package airportsdata "
        "that are not in the database yet. Safe to run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--update",
            action="store_true",
            help="Also put back to the published facts what was changed since.",
        )

    def handle(self, *, update: bool, verbosity: int, **options: Any) -> None:
        tables = loading.published()
        added = changed = 0
        with tqdm(
            total=sum(len(rows) for rows in tables),
            desc="Loading airports",
            unit=" rows",
            unit_scale=True,
            file=sys.stderr,
            # None: only where somebody is looking, that is on a terminal.
            disable=None if verbosity else True,
        ) as bar:
            for rows in tables:
                try:
                    outcome = loading.store(rows, update=update, progress=bar.update)
                except IntegrityError as error:
                    raise CommandError(
                        f"What was changed on the site clashes with the published "
                        f"facts ({error}). Resolve it in the admin, or start over "
                        f"in an empty bucket."
                    ) from error
                added += outcome.added
                changed += outcome.changed
        if verbosity:
            countries, zones, airports = (f"{len(rows):,}" for rows in tables)
            self.stdout.write(
                f"{airports} airports in {countries} countries and {zones} time "
                f"zones: {added:,} rows added, {changed:,} changed."
            )
