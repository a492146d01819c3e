"""The reference: Django's own backend on a SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.engines import ALIASES, Engine


class PlainSQLite(Engine):
    """A file, not ``:memory:``: Django's tests treat the two differently, and
    the engine's replica is a file."""

    def settings(self, folder: Path) -> dict[str, Any]:
        return {
            "DATABASES": {
                alias: {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(folder / f"{alias}.sqlite3"),
                    "TEST": {"NAME": str(folder / f"test-{alias}.sqlite3")},
                }
                for alias in ALIASES
            }
        }
