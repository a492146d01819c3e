from __future__ import annotations

import math
import re
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from s3cache import conf
from s3cache.conf import DatabaseOptions

OPTIONS = "DATABASES['s3']['OPTIONS']"


def refused(message: str) -> Any:
    return pytest.raises(ImproperlyConfigured, match=f"^{re.escape(message)}$")


# S3CACHE


@override_settings(S3CACHE={})
def test_defaults() -> None:
    assert conf.Settings() == conf.Settings.from_settings({})
    assert conf.settings() == conf.Settings(
        cache="default", ttl=300, key_version=1, include=None, exclude=()
    )


def test_settings_are_read_once() -> None:
    assert conf.settings() is conf.settings()


def test_settings_follow_override_settings() -> None:
    with override_settings(S3CACHE={"TTL": 5, "EXCLUDE": ["sessions"]}):
        assert conf.settings().ttl == 5
        assert conf.settings().exclude == ("sessions",)
    assert conf.settings().ttl == 300


def test_unknown_settings_are_refused_with_those_that_are_known() -> None:
    with refused(
        "S3CACHE has unknown 'LIFETIME', 'ttl'. Known are 'CACHE', 'TTL', "
        "'KEY_VERSION', 'INCLUDE', 'EXCLUDE', 'HOT_PATH', 'OPEN_TENANTS', "
        "'NAMESPACES', 'VERBOSE', 'RESPONSE_TTL', 'CREDENTIALS', "
        "'WARM_AT_START', 'RECORD_TRAFFIC', "
        "'METRICS', 'METRICS_CACHE', 'HIT_RATE_WARNING', 'SLOW_QUERY', 'PRICES'."
    ):
        conf.Settings.from_settings({"ttl": 5, "LIFETIME": 5})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CACHE", "", "a string that is not empty"),
        ("CACHE", 1, "a string that is not empty"),
        ("TTL", 0, "a number of seconds above 0"),
        ("TTL", -1, "a number of seconds above 0"),
        ("TTL", True, "a number of seconds above 0"),
        ("TTL", "300", "a number of seconds above 0"),
        ("TTL", math.inf, "a number of seconds above 0"),
        ("TTL", math.nan, "a number of seconds above 0"),
        ("RESPONSE_TTL", 0, "a number of seconds above 0"),
        ("VERBOSE", 1, "True or False"),
        ("CREDENTIALS", "X-Api-Key", "a list of names"),
        ("CREDENTIALS", [""], "a list of names"),
        ("METRICS", 1, "True or False"),
        ("METRICS_CACHE", "", "a string that is not empty"),
        ("HIT_RATE_WARNING", 70, "a number between 0 and 1, or None"),
        ("SLOW_QUERY", -1, "a number of seconds, 0 or more"),
        ("PRICES", 0.005, "a dict with strings as keys"),
        ("KEY_VERSION", None, "a number or a string"),
        ("KEY_VERSION", "", "a number or a string"),
        (
            "INCLUDE",
            "shop",
            "a list of labels of models ('shop.Product') or apps ('shop')",
        ),
        (
            "EXCLUDE",
            [1],
            "a list of labels of models ('shop.Product') or apps ('shop')",
        ),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    with refused(f"S3CACHE['{name}'] is {value!r}, but must be {allowed}."):
        conf.Settings.from_settings({name: value})


@pytest.mark.parametrize("value", [None, [], "default", {1: 2}])
def test_settings_must_be_a_dict(value: object) -> None:
    with refused(f"S3CACHE is {value!r}, but must be a dict with strings as keys."):
        conf.Settings.from_settings(value)


# DATABASES[...]["OPTIONS"]


def test_options_have_defaults_except_for_the_storage() -> None:
    assert DatabaseOptions.from_settings("s3", {"storage": "bucket"}) == (
        DatabaseOptions(
            storage="bucket",
            max_age=1.0,
            stale_if_error=3600.0,
            records=True,
            commit_timeout=20.0,
            signing_keys=(),
        )
    )


@override_settings(STORAGES={"default": {}, "bucket": {}})
def test_the_storage_is_required() -> None:
    with refused(
        f"{OPTIONS} lacks 'storage': the STORAGES alias of the bucket. "
        f"Defined are 'default', 'bucket'."
    ):
        DatabaseOptions.from_settings("s3", {})


def test_unknown_options_are_refused_with_those_that_are_known() -> None:
    with refused(
        f"{OPTIONS} has unknown 'timeout'. Known are 'storage', 'location', 'max_age', "
        f"'stale_if_error', 'records', 'commit_timeout', 'load_at_once', "
        f"'redis', 'signing_keys'."
    ):
        DatabaseOptions.from_settings("s3", {"storage": "bucket", "timeout": 5})


def test_max_age_and_stale_if_error_may_be_0() -> None:
    options = DatabaseOptions.from_settings(
        "s3", {"storage": "bucket", "max_age": 0, "stale_if_error": 0}
    )

    assert options.max_age == options.stale_if_error == 0


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("storage", "", "a string that is not empty"),
        ("max_age", -1, "a number of seconds, 0 or more"),
        ("max_age", None, "a number of seconds, 0 or more"),
        ("stale_if_error", math.inf, "a number of seconds, 0 or more"),
        ("records", 1, "True or False"),
        ("commit_timeout", 0, "a number of seconds above 0"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    with refused(f"{OPTIONS}['{name}'] is {value!r}, but must be {allowed}."):
        DatabaseOptions.from_settings("s3", {"storage": "bucket", name: value})


def test_signing_keys_are_bytes_whatever_was_given() -> None:
    options = DatabaseOptions.from_settings(
        "s3", {"storage": "bucket", "signing_keys": ["schlüssel", b"old"]}
    )

    assert options.signing_keys == ("schlüssel".encode(), b"old")


@pytest.mark.parametrize("value", ["secret", b"secret", ["secret", ""], [1], None])
def test_wrong_signing_keys_are_refused_without_being_shown(value: object) -> None:
    with refused(
        f"{OPTIONS}['signing_keys'] must be a list of keys, each a str or bytes and "
        f"not empty."
    ):
        DatabaseOptions.from_settings(
            "s3", {"storage": "bucket", "signing_keys": value}
        )


def test_signing_keys_are_not_in_the_repr() -> None:
    options = DatabaseOptions(storage="bucket", signing_keys=(b"secret",))

    assert "secret" not in repr(options)


# Which databases live in a bucket


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning")
def test_bucket_databases_are_those_with_the_engine() -> None:
    with override_settings(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3"},
            "a": {"ENGINE": "s3cache.db"},
            "b": {"ENGINE": "s3cache.db"},
        }
    ):
        assert conf.bucket_aliases() == ("a", "b")
    assert "a" not in conf.bucket_aliases()
