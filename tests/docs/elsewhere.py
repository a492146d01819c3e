"""Another host, for what pages say of several."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from s3cache.db.base import DatabaseWrapper


@contextmanager
def elsewhere(alias: str = "default") -> Iterator[DatabaseWrapper]:
    """Have the database be used from another host meanwhile."""
    here = connections[alias]
    settings = copy.deepcopy(here.settings_dict)
    settings["NAME"] = Path(settings["NAME"]).with_name("elsewhere.sqlite3")
    there = DatabaseWrapper(settings, alias)
    connections[alias] = there
    try:
        yield there
    finally:
        there.close()
        connections[alias] = here
