"""What the backend can do, and where it differs from SQLite's."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import features
from django.utils.functional import cached_property


class DatabaseFeatures(features.DatabaseFeatures):
    """SQLite's features; results are buffered, connections are many."""

    can_use_chunked_reads = False
    test_db_allows_multiple_connections = True

    @cached_property
    def django_test_skips(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Tests of Django's that cannot hold here, by cause."""
        skips: dict[str, Any] = dict(super().django_test_skips)
        return skips
