"""A site whose only database is in a directory: $S3CACHE_TEST_FOLDER."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.settings import *  # noqa: F403

FOLDER = Path(os.environ["S3CACHE_TEST_FOLDER"])

STORAGES: dict[str, dict[str, Any]] = {
    "staticfiles": {"BACKEND": "django.core.files.storage.memory.InMemoryStorage"},
    "bucket": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(FOLDER / "store")},
    },
}
DATABASES: dict[str, dict[str, Any]] = {  # type: ignore[no-redef]
    "default": {
        "ENGINE": "s3cache.db",
        "NAME": str(FOLDER / "replica.sqlite3"),
        "OPTIONS": {"storage": "bucket"},
    }
}
