"""Which models' results are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from s3cache import checks
from s3cache.options import S3Options
from s3cache.results.policy import is_kept
from tests.engine import Host
from tests.results.seen import BYPASS, HIT, NONE, directory, events
from tests.testapp.models import Category, Gear, Product

pytestmark = [directory, pytest.mark.usefixtures("bucket")]


def keeps(read: Callable[[], Any]) -> bool:
    read()
    return events(read) == HIT


def migrations() -> int:
    return MigrationRecorder.Migration.objects.count()


# Models that keep house


@pytest.mark.parametrize(
    ("included", "kept"),
    [
        (None, "users"),
        (["sessions", "testapp"], "sessions"),
        (["auth", "admin.LogEntry"], "admin users"),
        (["migrations.Migration"], "migrations"),
        (["MIGRATIONS", "Sessions.session"], "sessions migrations"),
    ],
)
def test_they_are_excluded_unless_included(
    host: Host, settings: Any, included: list[str] | None, kept: str
) -> None:
    with connection.schema_editor() as editor:
        editor.create_model(MigrationRecorder.Migration)
    settings.S3CACHE = {"INCLUDE": included}
    assert checks.check_settings() == []
    reads: dict[str, Callable[[], Any]] = {
        "sessions": Session.objects.count,
        "admin": LogEntry.objects.count,
        "migrations": migrations,
        "users": User.objects.count,
    }
    assert [name for name, read in reads.items() if keeps(read)] == kept.split()


def test_what_is_read_together_with_them_is_not_kept(host: Host) -> None:
    assert not keeps(lambda: list(User.objects.filter(logentry__isnull=True)))
    with connection.cursor() as cursor:
        assert events(lambda: cursor.execute("SELECT * FROM django_session")) == NONE


def test_their_freshness_does_not_depend_on_it(host: Host) -> None:
    assert Session.objects.count() == 0
    Session.objects.create(session_key="a", expire_date="2030-01-01T00:00:00Z")
    assert Session.objects.count() == 1


# S3Meta


@pytest.mark.parametrize(
    ("said", "given", "expected"),
    [
        (None, {}, True),
        (False, {}, False),
        (True, {"INCLUDE": ["auth"]}, True),
        (None, {"INCLUDE": ["auth"]}, False),
        (False, {"INCLUDE": ["testapp.Gear"]}, False),
        (True, {"EXCLUDE": ["testapp.Gear"]}, False),
        (True, {"INCLUDE": ["testapp.Gear"], "EXCLUDE": ["testapp"]}, False),
    ],
)
def test_what_a_model_says_of_itself(
    host: Host,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    said: bool | None,
    given: dict[str, Any],
    expected: bool,
) -> None:
    monkeypatch.setattr(Gear, "_s3meta", S3Options(cached=said))
    settings.S3CACHE = {"HOT_PATH": False, **given}
    assert keeps(Gear.objects.count) is expected
    assert is_kept(Gear) is expected
    assert Gear.objects.cache.stats()["enabled"] is expected
    assert Gear.objects.cache.warm_count(force_refresh=True) == expected


def test_the_table_of_a_relation_is_its_models(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"EXCLUDE": ["testapp.Product"]}
    assert not keeps(Product.related.through.objects.count)
    assert not keeps(lambda: list(Category.objects.filter(products__stock=1)))
    assert keeps(Category.objects.count)


# Names that there are not


@pytest.mark.parametrize("option", ["INCLUDE", "EXCLUDE"])
def test_an_unknown_name_is_an_error_where_it_is_used(
    host: Host, settings: Any, option: str
) -> None:
    settings.S3CACHE = {option: ["testapp.Gears", "auth"]}
    message = rf"S3CACHE\['{option}'\] names 'testapp\.Gears': .*'testapp\.Gear'"
    with pytest.raises(ImproperlyConfigured, match=message):
        Gear.objects.count()
    [found] = checks.check_settings()
    assert found.id == "s3cache.E007"
    settings.S3CACHE = {option: ["testapp.gear"]}
    assert events(Gear.objects.count) != BYPASS
