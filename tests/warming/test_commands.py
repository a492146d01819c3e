"""``s3cache_warm`` and ``s3cache_clear``."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import connections

from s3cache.warming import traffic
from tests.engine import Bucket, Host, MakeHost
from tests.results.seen import HIT, MISS, directory, events
from tests.testapp.models import Category, Gear, Product
from tests.warming.conftest import Declare

pytestmark = [directory, pytest.mark.usefixtures("bucket")]


def run(name: str, *args: str, **options: Any) -> tuple[str, str]:
    """What a command says, and complains of."""
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *args, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def told(name: str, *args: str) -> Any:
    return json.loads(run(name, *args, "--json")[0])


@pytest.fixture(autouse=True)
def shared(settings: Any, tmp_path: Any) -> None:
    """Results where other processes find them."""
    settings.CACHES = {
        "default": {
            "BACKEND": "s3cache.caches.FileSystemCache",
            "LOCATION": str(tmp_path / "files"),
        }
    }


@pytest.fixture
def gears(host: Host) -> list[Gear]:
    return [Gear.objects.create(name=name, weight=100) for name in "ab"]


# Warming


@pytest.mark.usefixtures("gears")
def test_a_model_is_warm_for_all_who_share_the_cache(bucket: Bucket) -> None:
    out, err = run("s3cache_warm", "testapp.Gear")
    assert out == "default: 5 results were stored for 5 reads; 0 failed.\n"
    assert err == ""
    with bucket.requests() as seen:
        assert events(lambda: list(Gear.objects.all())) == HIT
    assert seen == []
    out, _ = run("s3cache_warm", "testapp.gear")
    assert out == "default: 0 results were stored for 5 reads; 0 failed.\n"
    assert told("s3cache_warm", "testapp.Gear", "--force")["default"]["stored"] == 5


@pytest.mark.usefixtures("gears")
def test_samples_queries_and_partitions() -> None:
    Product.objects.create(sku="a")
    found = told("s3cache_warm", "testapp.Gear", "--sample", "1")["default"]
    assert found["by_source"].keys() == {"testapp.Gear"}
    assert found["stored"] == 3
    found = told("s3cache_warm", "--query", "heavy gears")["default"]
    assert found["by_source"].keys() == {"heavy gears"}
    plain = told("s3cache_warm", "testapp.Product")["default"]["stored"]
    more = told("s3cache_warm", "testapp.Product", "--partitions")["default"]
    assert (plain, more["stored"]) == (4, 9)


@pytest.mark.usefixtures("gears")
def test_without_names_everything(host: Host) -> None:
    found = told("s3cache_warm", "--workers", "2")["default"]
    assert found["by_source"].keys() >= {"testapp.Gear", "heavy gears", "auth.User"}
    # What is not kept is not read.
    assert "sessions.Session" not in found["by_source"]
    assert found["failed"] == 0
    assert events(Category.objects.count) == HIT


@pytest.mark.usefixtures("gears")
def test_an_app_is_all_its_models_whose_results_are_kept() -> None:
    found = told("s3cache_warm", "testapp", "auth.User", "testapp.Gear")["default"]
    assert found["by_source"].keys() >= {"testapp.Gear", "testapp.Product", "auth.User"}
    assert {name.partition(".")[0] for name in found["by_source"]} == {
        "auth",
        "testapp",
    }
    assert found["by_source"]["testapp.Gear"]["reads"] == 5  # once
    assert told("s3cache_warm", "TestApp")["default"]["stored"] == 0
    cleared = told("s3cache_clear", "testapp")
    assert cleared["testapp.Gear"] == 5
    assert "auth.User" not in cleared


@pytest.mark.usefixtures("gears")
def test_another_cache_of_the_models(settings: Any, tmp_path: Any) -> None:
    settings.CACHES = {
        **settings.CACHES,
        "slow": {
            "BACKEND": "s3cache.caches.FileSystemCache",
            "LOCATION": str(tmp_path / "slow"),
        },
    }
    settings.S3CACHE = {"NAMESPACES": {"analytics": {"CACHE": "slow", "TTL": 86_400}}}
    args = "testapp.Gear", "--query", "heavy gears", "--namespace", "Analytics"
    assert told("s3cache_warm", *args)["default"]["stored"] == 7
    assert events(Gear.objects.cached(namespace="analytics").count) == HIT
    assert events(Gear.objects.heavy().cached(namespace="analytics").count) == HIT
    assert events(Gear.objects.count) == MISS
    assert told("s3cache_warm", *args)["default"]["stored"] == 0
    assert told("s3cache_clear", "testapp", "--namespace", "analytics") == {
        **dict.fromkeys(told("s3cache_clear", "testapp", "--dry-run"), 0),
        "testapp.Gear": 7,
    }


@pytest.mark.usefixtures("gears")
def test_a_dry_run_stores_nothing() -> None:
    out, _ = run("s3cache_warm", "testapp.Gear", "--dry-run")
    assert out == (
        "default: 5 reads would be made.\n  testapp.Gear: 5 reads, 0 stored\n"
    )
    assert told("s3cache_warm", "testapp.Gear")["default"]["stored"] == 5


@pytest.mark.usefixtures("gears")
def test_silence() -> None:
    assert run("s3cache_warm", "testapp.Gear", "--verbosity", "0") == ("", "")


def test_what_was_read_at_this_hour(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        traffic.Traffic, "queries", lambda self, hour=None: [Gear.objects.all().query]
    )
    found = told("s3cache_warm", "--traffic")["default"]
    assert found["by_source"] == {
        "traffic": {"reads": 1, "stored": 1, "failed": 0, "by_source": {}}
    }
    assert events(lambda: list(Gear.objects.all())) == HIT


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["testapp.Car"], r"no model 'testapp\.Car'\. Models are .*'testapp\.Gear'"),
        (["--query", "x"], "no query 'x'. Queries are .*'heavy gears'"),
        (["sessions.Session"], r"Results of sessions\.Session are not kept: it keeps"),
        (["sessions"], "No model of 'sessions' has rows in 'default' whose results"),
        (["shop"], "no app 'shop'. Apps with models are .*'auth'.*'testapp'"),
        (["--namespace", "x"], "has no 'x'. Known are none"),
        (["--sample", "-1"], "--sample must be 0 or more"),
        (["--workers", "0"], "--workers 1 or more"),
        (["--database", "other"], "'other' is no database that lives in a bucket"),
    ],
)
def test_what_is_refused(host: Host, args: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("s3cache_warm", *args)


class Elsewhere:
    """A router that has gears in another database."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if hints["model_name"] == "gear" else None


def test_a_model_that_is_in_none_of_the_databases(host: Host, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.Elsewhere"]
    with pytest.raises(CommandError, match="testapp.Gear has no rows in 'default'"):
        run("s3cache_warm", "testapp.Gear")


def test_reads_that_fail_are_an_exit_status(host: Host, declare: Declare) -> None:
    declare("bad")(lambda: Gear.objects.extra(where=["nonsense"]))
    with pytest.raises(CommandError, match="1 reads failed"):
        run("s3cache_warm", "--query", "bad", "--query", "heavy gears")
    assert events(Gear.objects.heavy().count) == HIT


def test_a_query_that_cannot_be_made(host: Host, declare: Declare) -> None:
    declare("broken")(lambda: Gear.objects.all()[: 1 // 0])
    with pytest.raises(CommandError, match="The query 'broken': integer division"):
        run("s3cache_warm", "--query", "broken")


def test_a_proxy(host: Host) -> None:
    assert told("s3cache_warm", "testapp.PlaceProxy")["default"]["stored"] == 3


def test_a_cache_in_memory_is_for_nobody(host: Host, settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    }
    _, err = run("s3cache_warm", "testapp.Gear")
    assert "CACHES['default'] is in the memory of this process, which ends" in err


# Clearing


@pytest.mark.usefixtures("gears")
def test_a_model() -> None:
    Gear.objects.cache.warm()
    Gear.objects.cache.set("own", 1)
    Category.objects.cache.warm()
    out, _ = run("s3cache_clear", "testapp.Gear", "--dry-run")
    assert out.startswith("testapp.Gear: 6 entries would be removed.\n")
    assert told("s3cache_clear", "testapp.Gear") == {"testapp.Gear": 6}
    assert Gear.objects.cache.get("own") is None
    assert events(Gear.objects.count) == MISS
    assert events(Category.objects.count) == HIT


def test_it_says_what_it_does_not_do(host: Host) -> None:
    out, _ = run("s3cache_clear")
    assert "Records that somebody else has put into the bucket are not adopted" in out
    assert "`s3cache_verify --adopt` does that." in out
    assert run("s3cache_clear", "--verbosity", "0") == ("", "")


def test_one_part(host: Host) -> None:
    Product.objects.create(sku="a", region="EU")
    Product.objects.create(sku="b", region="US", kind="x")
    Product.objects.cache.warm()
    args = ("testapp.Product", "--partition", "by_region_and_kind")
    assert told("s3cache_clear", *args, "region=US", "kind=x") == {"testapp.Product": 3}
    assert events(Product.objects.filter(region="EU").count) == HIT
    for bad, message in [
        (["by_size", "size=1"], "no partition 'by_size'. Its partitions are"),
        (["by_region"], "takes the fields 'region', not {}"),
        (["by_region", "region"], "'region' is not written as field=value"),
        (["by_region", "regions=x"], "takes the fields 'region', not {'regions'"),
        (["by_category", "category=x"], "not a valid UUID"),
    ]:
        with pytest.raises(CommandError, match=message):
            run("s3cache_clear", "testapp.Product", "--partition", *bad)
    with pytest.raises(CommandError, match="--partition takes one model"):
        run("s3cache_clear", "--partition", "by_region", "region=US")


def test_everything(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"NAMESPACES": {"analytics": {}}}
    Gear.objects.cache.warm()
    Gear.objects.cache.namespace("analytics").warm_count()
    Gear.objects.cache.set("own", 1)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM testapp_gear")
    caches["default"].set("theirs", 1)
    assert told("s3cache_clear", "--namespace", "analytics")["testapp.Gear"] == 1
    assert told("s3cache_clear") == {"default": 5}
    assert caches["default"].get("theirs") == 1
    assert told("s3cache_clear") == {"default": 0}


def test_of_one_database(host: Host) -> None:
    Gear.objects.cache.warm()
    found = told("s3cache_clear", "--database", "default")
    assert found["testapp.Gear"] == 3
    assert "auth.User" in found
    with pytest.raises(CommandError, match="'other' is no database"):
        run("s3cache_clear", "--database", "other")


def test_what_cannot_be_cleared_is_said(
    host: Host, settings: Any, tmp_path: Any
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(tmp_path / "files"),
        }
    }
    for args in ([], ["testapp.Gear"]):
        with pytest.raises(CommandError, match="FileBasedCache does not list its keys"):
            run("s3cache_clear", *args)
    with pytest.raises(CommandError, match=r"no model 'testapp\.Car'"):
        run("s3cache_clear", "testapp.Car")
    with pytest.raises(CommandError, match="has no 'x'. Known are none"):
        run("s3cache_clear", "--namespace", "x")


def test_the_store_is_down(hosts: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3cache.exceptions import StoreUnavailable

    with hosts("cut off", max_age=0.0, stale_if_error=0.0) as host:
        host.catch_up()

        def refuse(self: object) -> None:
            raise StoreUnavailable("the store does not answer")

        monkeypatch.setattr(type(host.connection.replica), "catch_up", refuse)
        with pytest.raises(CommandError, match="default: the store does not answer"):
            run("s3cache_warm", "testapp.Gear")
