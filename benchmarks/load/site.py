"""The site: its settings, by environment, and what gunicorn calls."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import django
from django.conf import settings

from benchmarks.s3_server import storage

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler

BUCKET = "load"
VARIABLE = "S3CACHE_BENCHMARKS_LOAD"


@dataclass(frozen=True)
class Setup:
    """Where the database is, and whether there are caches.

    Without: no results are kept, and nothing that is older than the read is
    good enough, so that each read asks the store.
    """

    store: str
    location: str
    replica: str
    caches: bool

    def environment(self) -> dict[str, str]:
        """That of a process which ``from_environment()`` is to find it in."""
        return os.environ | {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Setup:
        """The setup of this process."""
        return cls(**json.loads(os.environ[VARIABLE]))


def configure(setup: Setup) -> None:
    """Set Django up."""
    options = {"storage": "bucket", "records": False}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": {"BACKEND": "s3cache.caches.MemoryCache"}},
        DATABASES={
            "default": {
                "ENGINE": "s3cache.db",
                "NAME": Path(setup.replica),
                "OPTIONS": options if setup.caches else {**options, "max_age": 0},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["s3cache", "benchmarks"],
        ROOT_URLCONF="benchmarks.load.urls",
        S3CACHE={} if setup.caches else {"CACHE": None},
        STORAGES={"bucket": storage(setup.store, BUCKET, setup.location)},
        USE_TZ=True,
    )
    django.setup()


def application() -> WSGIHandler:
    """The site, for ``gunicorn 'benchmarks.load.site:application()'``."""
    from django.core.wsgi import get_wsgi_application

    configure(Setup.from_environment())
    return get_wsgi_application()
