"""A small site in a directory, with all that keeps browsers strict."""

from __future__ import annotations

from typing import Any

import django

from tests.library.settings import *  # noqa: F403
from tests.library.settings import (
    FOLDER,
    INSTALLED_APPS,
    MIDDLEWARE,
    STORAGES,
)

DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.staticfiles", "debug_toolbar"]
STORAGES = {
    **STORAGES,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
MIDDLEWARE = [
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6, 0)
    else "example_project.security.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    *MIDDLEWARE[1:],
    "debug_toolbar.middleware.DebugToolbarMiddleware",
]
DEBUGGED = ("/visit/debugged/", "/__debug__/render_panel/")
DEBUG_TOOLBAR_PANELS = ["s3cache.dashboard.panel.ReadsPanel"]
DEBUG_TOOLBAR_CONFIG = {
    "SHOW_TOOLBAR_CALLBACK": lambda request: request.path in DEBUGGED,
    "RENDER_PANELS": False,
}
#: Django's name for what the example's middleware sends.
SECURE_CSP = {
    "default-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "base-uri": ["'none'"],
    "object-src": ["'none'"],
}
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
ROOT_URLCONF = "tests.dashboard.browser.urls"
STATIC_ROOT = FOLDER / "static"
DATABASES: dict[str, dict[str, Any]] = {  # type: ignore[no-redef]
    "default": {
        "ENGINE": "s3cache.db",
        "NAME": str(FOLDER / "replica.sqlite3"),
        "OPTIONS": {"storage": "bucket", "max_age": 60, "records": False},
    }
}
DATABASE_ROUTERS = ["s3cache.routers.S3Router"]
CACHES = {
    "default": {
        "BACKEND": "s3cache.caches.MemoryCache",
        "OPTIONS": {"max_memory_bytes": 10_000_000},
    }
}
