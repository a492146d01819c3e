from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class S3CacheConfig(AppConfig):
    """Registers the system checks, and begins what goes on by itself."""

    name = "s3cache"
    verbose_name = _("S3 cache")

    def ready(self) -> None:
        from s3cache import checks
        from s3cache.metrics import keeping
        from s3cache.results import verbose
        from s3cache.warming import starting

        checks.register()
        keeping.start()
        verbose.follow_settings()
        starting.connect()
