"""What the backend can do, and where it differs from SQLite's."""

from __future__ import annotations

from typing import ClassVar

from django.db.backends.sqlite3 import features


class DatabaseFeatures(features.DatabaseFeatures):
    """SQLite's features; results are buffered, connections are many."""

    can_use_chunked_reads = False
    test_db_allows_multiple_connections = True

    #: As ``django_test_skips``, for runs that lose replicas within tests.
    test_skips_after_loss: ClassVar[dict[str, set[str]]] = {
        "Ids that a replica had reserved are lost with it, so that rows of two "
        "databases get different ones.": {
            "multiple_database.tests.RouterTestCase."
            "test_generic_key_cross_database_protection",
        },
    }
