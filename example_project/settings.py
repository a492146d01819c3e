"""
Settings of the example: a whole site whose only database is a bucket.

Without any environment variable the bucket is the local directory
``var/bucket`` (ignored by git), and the site answers on this machine only.
These variables change that:

``EXAMPLE_S3_BUCKET``
    Name of a bucket. When it is set, the site lives there. Credentials come
    from where boto3 looks for them (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``,
    the instance's role, ...).
``EXAMPLE_S3_ENDPOINT``
    Address of an S3-compatible store; unset means Amazon's.
``EXAMPLE_S3_PREFIX``
    Folder of the bucket to live in, "airports" unless set.
``EXAMPLE_S3_REGION``
    Region of the bucket; unset means boto3's default.
``EXAMPLE_VAR``
    Directory for the replica, the local store and collected static files,
    ``var`` unless set.
``EXAMPLE_SECRET_KEY``, ``EXAMPLE_ALLOWED_HOSTS`` (comma-separated),
``EXAMPLE_HTTPS`` (0 or 1), ``EXAMPLE_DEBUG`` (0 or 1)
    What they are called in Django. Other hosts than this machine need a secret
    key of their own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("EXAMPLE_VAR", BASE_DIR / "var"))
VAR_DIR.mkdir(parents=True, exist_ok=True)


def flag(name: str) -> bool:
    """Return whether the environment variable is 1; unset means 0."""
    value = os.environ.get(name, "0")
    if value not in {"0", "1"}:
        raise ImproperlyConfigured(f"{name} must be 0 or 1, not {value!r}.")
    return value == "1"


# Who may call, and over what.

LOCAL_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

DEBUG = flag("EXAMPLE_DEBUG")
ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("EXAMPLE_ALLOWED_HOSTS", "").split(",")
    if host.strip()
] or LOCAL_HOSTS

# The prefix makes `check --deploy` warn (security.W009).
SECRET_KEY = os.environ.get(
    "EXAMPLE_SECRET_KEY", "django-insecure-for-this-machine-only-airport-atlas"
)
if SECRET_KEY.startswith("django-insecure-") and not set(ALLOWED_HOSTS) <= set(
    LOCAL_HOSTS
):
    raise ImproperlyConfigured(
        "EXAMPLE_ALLOWED_HOSTS opens the site to other hosts: "
        "set EXAMPLE_SECRET_KEY to a long random text of your own too."
    )

SECURE_SSL_REDIRECT = flag("EXAMPLE_HTTPS")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT
SECURE_HSTS_SECONDS = 3600 if SECURE_SSL_REDIRECT else 0
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"

# What the site is made of.

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "s3cache",
    "example_project.airports",
]

MIDDLEWARE = [
    # Outermost, so that it also sees what sessions and messages cost.
    "example_project.cost.CostMiddleware",
    # What the caches did, and how long browsers may keep that.
    "s3cache.middleware.CacheStatusMiddleware",
    "s3cache.middleware.CacheControlMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "example_project.security.ContentSecurityPolicyMiddleware",
    # Before what reads the database.
    "s3cache.middleware.ReadYourWritesMiddleware",
    # Whole pages, for visitors that are not logged in.
    "s3cache.middleware.ResponseCacheMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Where the data lives.

STORAGES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": VAR_DIR / "media"},
    },
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
    },
    "s3cache": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": VAR_DIR / "bucket"},
    },
}
if bucket := os.environ.get("EXAMPLE_S3_BUCKET"):
    STORAGES["s3cache"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": bucket,
            "endpoint_url": os.environ.get("EXAMPLE_S3_ENDPOINT"),
            "location": os.environ.get("EXAMPLE_S3_PREFIX", "airports"),
            "region_name": os.environ.get("EXAMPLE_S3_REGION"),
        },
    }

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "s3cache.db",
        "NAME": VAR_DIR / "replica.sqlite3",
        # What other hosts change may show a minute late; own changes never.
        # 28,000 rows as an object each are more than a demonstration needs.
        "OPTIONS": {"storage": "s3cache", "max_age": 60, "records": False},
    }
}
# Where results of queries are kept, and whole pages.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "s3cache.caches.MemoryCache",
        "OPTIONS": {"max_memory_percent": 10},
    }
}
# Each process has the front page's results before the second visitor comes.
S3CACHE: dict[str, Any] = {"WARM_AT_START": ["front page"]}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Login.

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "airports:index"
LOGOUT_REDIRECT_URL = "airports:index"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Django's default reports errors by mail only where DEBUG is off.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {
        name: {"handlers": ["console"], "level": "WARNING"}
        for name in ("django", "s3cache")
    },
}

# Language, time, files.

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
USE_THOUSAND_SEPARATOR = False

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
