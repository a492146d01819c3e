from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core import checks as django_checks
from django.core.checks import CheckMessage, Error, Warning
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps

from s3cache import checks, conf, project_checks
from s3cache.exceptions import StoreRefused, StoreUnavailable, UnsuitableStore
from s3cache.models import S3Model
from tests.databases import databases
from tests.testapp.models import Product


def bucket(**options: Any) -> dict[str, Any]:
    return {
        "ENGINE": "s3cache.db",
        "NAME": "replica.sqlite3",
        "OPTIONS": {"storage": "bucket", **options},
    }


@pytest.fixture(autouse=True)
def storages(tmp_path: Path) -> Iterator[None]:
    """A directory as the STORAGES alias "bucket", and one of another kind."""
    with override_settings(
        STORAGES={
            "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
            "bucket": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": tmp_path / "bucket"},
            },
        }
    ):
        yield


def only(messages: list[CheckMessage]) -> CheckMessage:
    (message,) = messages
    return message


class App:
    """As much of an AppConfig as the check of models needs."""

    def __init__(self, *classes: type[models.Model]) -> None:
        self.classes = classes

    def get_models(self) -> tuple[type[models.Model], ...]:
        return self.classes


def check_models(*classes: type[models.Model]) -> list[CheckMessage]:
    return checks.check_models(app_configs=[App(*classes)])  # type: ignore[list-item]


def test_a_sound_project_passes() -> None:
    with databases(default="sqlite", s3=bucket()):
        assert checks.check_platform() == []
        assert checks.check_databases() == []
        assert checks.check_settings() == []
        assert check_models(*apps.get_app_config("auth").get_models(), Product) == []


@pytest.mark.parametrize("name", ["nowhere", "default"])
def test_news_by_what_is_no_redis(name: str) -> None:
    with databases(default=bucket(redis=name)):
        message = only(checks.check_databases())
    assert message.id == "s3cache.E015"
    assert message.msg.startswith(
        f"DATABASES['default']['OPTIONS']['redis'] is '{name}', which is no "
    )


def test_a_project_with_nothing_but_a_bucket_passes() -> None:
    with databases(router=False, default=bucket()):
        messages = checks.check_models()
    # Its own models and Django's; W004 needs two databases.
    assert messages == []


def test_all_checks_are_registered() -> None:
    tags: dict[Any, set[str]] = {
        check: set(check.tags)
        for check in django_checks.registry.registry.get_checks()
        if "s3cache" in getattr(check, "tags", ())
    }

    assert tags == {
        checks.check_platform: {"s3cache"},
        checks.check_databases: {"s3cache"},
        checks.check_settings: {"s3cache"},
        checks.check_models: {"s3cache", "models"},
        checks.check_stores: {"s3cache", "database"},
        checks.check_caches: {"s3cache", "caches"},
        project_checks.check_blocks: {"s3cache"},
        project_checks.check_sessions: {"s3cache"},
        project_checks.check_middleware: {"s3cache"},
        project_checks.check_published: {"s3cache", "security"},
        project_checks.check_networks: {"s3cache"},
        project_checks.check_keys_of_files: {"s3cache", "caches"},
    }


def test_those_of_deployments_are_registered() -> None:
    mine: set[Any] = {
        check
        for check in django_checks.registry.registry.get_checks(True)
        if "s3cache" in getattr(check, "tags", ())
    }
    always = {*django_checks.registry.registry.get_checks()}

    assert mine - always == {
        checks.check_memory_limits,
        checks.check_results,
        project_checks.check_directories,
        project_checks.check_keys_of_buckets,
        project_checks.check_room_for_results,
    }


def test_each_id_is_listed_once_and_used() -> None:
    source = "".join(map(inspect.getsource, (checks, project_checks)))
    assert checks.__doc__
    listed = re.findall(r"s3cache\.[EWI]\d{3}", checks.__doc__)
    used = set(re.findall(r'id="(s3cache\.[EWI]\d{3})"', source))

    assert listed == sorted(set(listed))
    assert set(listed) == used


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert only(checks.check_platform()) == Error(
        "s3cache does not run on Windows.",
        hint="Use Linux, macOS, or the Windows Subsystem for Linux.",
        id="s3cache.E001",
    )


# DATABASES


def test_wrong_options() -> None:
    with databases(default="sqlite", s3=bucket(max_age=-1)):
        assert only(checks.check_databases()) == Error(
            "DATABASES['s3']['OPTIONS']['max_age'] is -1, but must be a number of "
            "seconds, 0 or more.",
            hint="Correct DATABASES['s3']['OPTIONS'] in the settings: until then the "
            "database cannot be used.",
            id="s3cache.E002",
        )


def test_missing_options() -> None:
    with databases(default="sqlite", s3={"ENGINE": "s3cache.db", "NAME": "x"}):
        assert only(checks.check_databases()).id == "s3cache.E002"


def test_a_storage_that_is_not_defined() -> None:
    with databases(default="sqlite", s3=bucket(storage="buckit")):
        assert only(checks.check_databases()) == Error(
            "DATABASES['s3']['OPTIONS']['storage'] is 'buckit', which is no STORAGES "
            "alias.",
            hint="Defined are 'default', 'bucket'.",
            id="s3cache.E003",
        )


def test_a_storage_of_another_kind() -> None:
    with databases(default="sqlite", s3=bucket(storage="default")):
        message = only(checks.check_databases())
    assert message.id == "s3cache.E004"
    assert message.msg.startswith(
        "DATABASES['s3']['OPTIONS']['storage'] cannot hold a database: "
        "STORAGES['default'] is a django.core.files.storage.memory.InMemoryStorage"
    )


def test_max_age_0() -> None:
    with databases(default="sqlite", s3=bucket(max_age=0)):
        assert only(checks.check_databases()) == Warning(
            "DATABASES['s3']['OPTIONS']['max_age'] is 0: every read pays a request "
            "to the store.",
            hint="At 1, the default, one request a second serves all reads of a "
            "host. fresh() asks for a single query.",
            id="s3cache.W003",
        )


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mounts"
    path.write_text(
        "/dev/vda / ext4 rw,relatime 0 0\n"
        "tmpfs /run tmpfs rw 0 0\n"
        "server:/export /srv/shared\\040files nfs4 rw 0 0\n"
        "me@server: /home/me/server fuse.sshfs rw 0 0\n"
        "/dev/vdb /run/disk ext4 rw 0 0\n"
        "tmpfs /var/lib tmpfs rw 0 0\n"
        "/dev/vdc /var/lib ext4 rw 0 0\n"
    )
    monkeypatch.setattr("s3cache.mounts.MOUNTS", path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/data/replica.sqlite3", None),
        ("/run/replica.sqlite3", "s3cache.W001"),
        ("/running/replica.sqlite3", None),
        ("/run/disk/replica.sqlite3", None),
        ("/srv/shared files/replica.sqlite3", "s3cache.W002"),
        ("/home/me/server/replica.sqlite3", "s3cache.W002"),
        ("/var/lib/replica.sqlite3", None),  # the later mount hides the other
    ],
)
def test_the_file_system_of_the_replica(
    name: str, expected: str | None, mounts: None
) -> None:
    with databases(default="sqlite", s3={**bucket(), "NAME": Path(name)}):
        found = [message.id for message in checks.check_databases()]
    assert found == ([expected] if expected else [])


def test_where_nobody_says_what_a_file_system_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s3cache.mounts.MOUNTS", Path("/nonexistent/mounts"))

    with databases(default="sqlite", s3=bucket()):
        assert checks.check_databases() == []


# S3CACHE


@pytest.mark.parametrize(
    ("given", "id", "message"),
    [
        (
            {"LIFETIME": 1},
            "E005",
            "S3CACHE has unknown 'LIFETIME'. Known are "
            + ", ".join(repr(field.name.upper()) for field in fields(conf.Settings))
            + ".",
        ),
        (
            {"CACHE": "redis"},
            "E006",
            "S3CACHE['CACHE'] is 'redis', which is no CACHES alias.",
        ),
        (
            {"INCLUDE": ["auth", "shop.Product"]},
            "E007",
            "S3CACHE['INCLUDE'] names 'shop.Product', which is neither an installed "
            "app nor a model of one.",
        ),
        (
            {"EXCLUDE": ["auth.User", "a.b.c"]},
            "E007",
            "S3CACHE['EXCLUDE'] names 'a.b.c', which is neither an installed app nor "
            "a model of one.",
        ),
    ],
)
def test_wrong_settings(given: dict[str, Any], id: str, message: str) -> None:
    with override_settings(S3CACHE=given):
        found = only(checks.check_settings())
    assert (found.id, found.msg) == (f"s3cache.{id}", message)


# Models


@pytest.mark.parametrize(("most", "files"), [(60, None), (61, 1037)])
def test_tenants_that_several_threads_use(
    monkeypatch: pytest.MonkeyPatch, most: int, files: int | None
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    with override_settings(
        DATABASE_ROUTERS=[conf.TENANT_ROUTER], S3CACHE={"OPEN_TENANTS": most}
    ):
        messages = [one.msg for one in checks.check_settings()]
    assert messages == [
        f"S3CACHE['OPEN_TENANTS'] is {most}, which takes {files} files where 4 "
        f"threads use each of them, but a process here may open 1024."
        for _ in [most]
        if files
    ]


def test_an_s3model_outside_of_a_bucket() -> None:
    with databases(router=False, default="sqlite", s3=bucket()):
        assert only(check_models(Product, User)) == Error(
            "testapp.Product is an S3Model, but its rows would be written to the "
            "database 'default', which does not live in a bucket.",
            hint="Add 's3cache.routers.S3Router' to DATABASE_ROUTERS, before routers "
            "that send it elsewhere, and name in its S3Meta.database, if anything, "
            "one of the databases with the ENGINE 's3cache.db'. There are 's3'.",
            obj=Product,
            id="s3cache.E008",
        )


def test_several_databases_for_a_model() -> None:
    with databases(default="sqlite", a=bucket(), b=bucket()):
        assert only(check_models(Product)) == Error(
            "testapp.Product could live in several databases: 'a', 'b'. Name one in "
            "its S3Meta (database = ...), or in .using(...).",
            hint="If all of its rows are in one of them, let its S3Meta say so: "
            "otherwise each query needs .using(...).",
            obj=Product,
            id="s3cache.E012",
        )


@isolate_apps("tests.testapp")
def test_partitions_of_fields_that_do_not_exist() -> None:
    class Thing(S3Model):
        region = models.CharField(max_length=2)
        others = models.ManyToManyField("self")

        class Meta:
            app_label = "testapp"

        class S3Meta:
            partitions = {"fine": ["region", "id"], "odd": ["regoin", "others"]}

    with databases(default="sqlite", s3=bucket()):
        messages = check_models(Thing)
    assert messages == [
        Error(
            f"The partition 'odd' names '{name}', which is no field of testapp.Thing "
            "with a column.",
            hint="Its fields are 'id', 'region'.",
            obj=Thing,
            id="s3cache.E009",
        )
        for name in ("regoin", "others")
    ]


@isolate_apps("tests.testapp")
def test_options_of_a_model() -> None:
    class Thing(S3Model):
        class Meta:
            app_label = "testapp"

        class S3Meta:
            cache = "nowhere"
            max_age = 0

    with databases(default="sqlite", s3=bucket()):
        missing, costly = check_models(Thing)
    assert missing == Error(
        "S3Meta.cache is 'nowhere', which is no CACHES alias.",
        hint="Defined are 'default'.",
        obj=Thing,
        id="s3cache.E006",
    )
    assert (costly.id, costly.obj) == ("s3cache.W003", Thing)


@isolate_apps("tests.testapp")
def test_decimals_that_sqlite_would_round() -> None:
    class Wide(S3Model):
        fine = models.DecimalField(max_digits=15, decimal_places=2)
        wide = models.DecimalField(max_digits=16, decimal_places=2)

        class Meta:
            app_label = "testapp"

    class Elsewhere(models.Model):  # noqa: DJ008
        wide = models.DecimalField(max_digits=16, decimal_places=2)

        class Meta:
            app_label = "testapp"

    with databases(default="sqlite", s3=bucket()):
        assert only(check_models(Wide, Elsewhere)) == Error(
            "testapp.Wide.wide may have 16 digits, but SQLite keeps 15 and silently "
            "rounds the rest.",
            hint="Set max_digits to 15 or less, or keep the number in a "
            "BigIntegerField that counts the smallest unit, or in a CharField.",
            obj=Wide._meta.get_field("wide"),
            id="s3cache.E010",
        )
    with databases(default=bucket()):
        assert len(check_models(Wide, Elsewhere)) == 2


def test_sqlite_does_round_them(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT CAST(%s AS decimal)", ["1234567890123456.78"])
        (kept,) = cursor.fetchone()

    assert Decimal(repr(kept)) == Decimal("1234567890123456.8")


@isolate_apps("tests.testapp")
def test_relations_that_leave_the_database() -> None:
    class Owned(S3Model):
        owner = models.ForeignKey(User, models.CASCADE)
        editor = models.ForeignKey(
            User, models.CASCADE, db_constraint=False, related_name="+"
        )
        readers = models.ManyToManyField(User, related_name="+")
        product = models.ForeignKey(Product, models.CASCADE)

        class Meta:
            app_label = "testapp"

    with databases(default="sqlite", s3=bucket()):
        messages = check_models(Owned)
    assert [message.msg for message in messages] == [
        f"testapp.Owned.{name} leads from the database 's3' to 'default': it cannot be "
        "joined, and its constraint cannot be checked."
        for name in ("owner", "readers")
    ]
    assert {message.id for message in messages} == {"s3cache.W004"}
    with databases(default=bucket()):
        assert check_models(Owned) == []


# The store


def test_stores_are_asked_for_the_databases_named_only(tmp_path: Path) -> None:
    with databases(default="sqlite", s3=bucket()):
        assert checks.check_stores() == []
        assert checks.check_stores(databases=["default"]) == []
        assert not (tmp_path / "bucket").exists()
        assert checks.check_stores(databases=["s3"]) == []
        assert (tmp_path / "bucket").exists()


@pytest.mark.parametrize(
    ("error", "id", "message"),
    [
        (
            UnsuitableStore("it ignores If-None-Match"),
            "s3cache.E011",
            "The store of the database 's3' cannot hold it: it ignores If-None-Match",
        ),
        (
            StoreRefused("403"),
            "s3cache.E011",
            "The store of the database 's3' cannot hold it: 403",
        ),
        (
            StoreUnavailable("timeout"),
            "s3cache.W005",
            "The store of the database 's3' did not answer: timeout",
        ),
    ],
)
def test_a_store_that_will_not_do(
    error: Exception, id: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(store: object) -> None:
        raise error

    monkeypatch.setattr(checks, "probe", probe)

    with databases(default="sqlite", s3=bucket()):
        found = only(checks.check_stores(databases=["s3"]))
    assert (found.id, found.msg) == (id, message)


def test_a_store_that_is_not_configured_is_not_asked() -> None:
    with databases(default="sqlite", s3=bucket(storage="nowhere")):
        assert checks.check_stores(databases=["s3"]) == []


@isolate_apps("tests.testapp")
def test_models_that_cannot_be_written_behind() -> None:
    class Numbered(S3Model):
        id = models.BigAutoField(primary_key=True)
        name = models.CharField(max_length=9, unique=True)

        class S3Meta:
            write_behind = True

        class Meta:
            app_label = "testapp"

        def __str__(self) -> str:
            return self.name

    with databases(default=bucket()):
        found = [one for one in check_models(Numbered) if one.id == "s3cache.E021"]
    assert len(found) == 2
    assert "its primary key is a number that the database gives" in found[0].msg
    assert "nobody would be told that a value is taken (name)" in found[1].msg
