from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import models, router
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import isolate_apps

from s3cache.models import S3Model
from s3cache.routers import InBucket, S3Router, bucket_alias, lives_in_bucket
from tests.databases import databases
from tests.testapp.models import Category, Note, Place, PlaceProxy, Product, Shop


@pytest.fixture
def one_bucket() -> Iterator[None]:
    with databases(default="sqlite", other="sqlite", s3="bucket"):
        yield


def read_from(model: type[models.Model], alias: str) -> Any:
    """An instance as if it had been read from that database."""
    instance = model()
    instance._state.db = alias
    instance._state.adding = False
    return instance


def historical(model: type[models.Model], **changes: Any) -> type[models.Model]:
    """The class of a model in the state of a migration."""
    state = ProjectState()
    model_state = ModelState.from_model(model)
    for name, value in changes.items():
        setattr(model_state, name, value)
    model_state.fields = {
        name: field
        for name, field in model_state.fields.items()
        if not field.is_relation
    }
    state.add_model(model_state)
    return state.apps.get_model(model_state.app_label, model_state.name)


# Reading and writing


@pytest.mark.parametrize("model", [Product, Shop, Place, PlaceProxy])
def test_s3models_live_in_the_bucket(
    model: type[models.Model], one_bucket: None
) -> None:
    assert router.db_for_read(model) == router.db_for_write(model) == "s3"


@pytest.mark.parametrize("model", [User, Note, ContentType])
def test_other_models_do_not(model: type[models.Model], one_bucket: None) -> None:
    assert router.db_for_read(model) == router.db_for_write(model) == "default"


def test_the_table_of_a_relation_lives_with_the_model_that_declares_it(
    one_bucket: None,
) -> None:
    # That is where Django's migrations create it.
    assert router.db_for_write(Product.related.through) == "s3"
    assert router.db_for_write(Note.products.through) == "default"


def test_without_a_bucket_the_router_has_no_say() -> None:
    with databases(default="sqlite", other="sqlite"):
        assert router.db_for_write(Product) == "default"
        assert router.allow_migrate_model("default", Product)
        assert bucket_alias() is None


def test_a_bucket_may_be_the_default() -> None:
    with databases(default="bucket"):
        assert router.db_for_write(Product) == router.db_for_write(User) == "default"
        assert router.allow_migrate_model("default", Product)
        assert router.allow_migrate_model("default", User)


def test_databases_are_looked_up_when_they_are_needed() -> None:
    for alias in ("a", "b"):
        engines: Any = {"default": "sqlite", alias: "bucket"}
        with databases(**engines):
            assert router.db_for_write(Product) == alias


# Several buckets


def test_of_several_buckets_the_default_one_is_taken() -> None:
    with databases(default="bucket", s3="bucket"):
        assert router.db_for_write(Product) == bucket_alias() == "default"


def test_several_buckets_without_a_default_are_an_error() -> None:
    with databases(default="sqlite", a="bucket", b="bucket"):
        with pytest.raises(
            ImproperlyConfigured,
            match=re.escape(
                "testapp.Product could live in several databases: 'a', 'b'. Name one "
                "in its S3Meta (database = ...), or in .using(...)."
            ),
        ):
            router.db_for_write(Product)
        with pytest.raises(
            ImproperlyConfigured,
            match=re.escape(
                "Several databases live in a bucket: 'a', 'b'. Say which one is meant "
                "(using=...)."
            ),
        ):
            bucket_alias()


@isolate_apps("tests.testapp")
def test_a_model_may_name_its_database_for_itself_and_its_children() -> None:
    class Archived(S3Model):
        class Meta:
            app_label = "testapp"

        class S3Meta:
            database = "archive"

    class Child(Archived):
        class Meta:
            app_label = "testapp"

        class S3Meta:
            ttl = 5

    with databases(default="sqlite", s3="bucket", archive="bucket"):
        for model in (Archived, Child):
            assert router.db_for_write(model) == bucket_alias(model) == "archive"
            assert router.allow_migrate_model("archive", model)
            assert not router.allow_migrate_model("s3", model)


def test_an_instance_stays_in_the_bucket_that_it_was_read_from() -> None:
    with databases(default="bucket", tenant="bucket"):
        product = read_from(Product, "tenant")

        assert router.db_for_write(Product, instance=product) == "tenant"
        assert router.db_for_read(Category, instance=product) == "tenant"


def test_models_that_name_no_database_migrate_to_every_bucket() -> None:
    with databases(default="sqlite", a="bucket", b="bucket"):
        assert router.allow_migrate_model("a", Product)
        assert router.allow_migrate_model("b", Product)
        assert not router.allow_migrate_model("default", Product)


# Relations


def test_relations_within_a_bucket_are_allowed(one_bucket: None) -> None:
    assert router.allow_relation(Product(), read_from(Category, "s3"))


def test_relations_that_leave_the_bucket_are_not(one_bucket: None) -> None:
    product, user = read_from(Product, "s3"), read_from(User, "default")

    assert not router.allow_relation(product, user)
    assert not router.allow_relation(user, product)


def test_relations_between_buckets_are_not_allowed() -> None:
    with databases(default="bucket", tenant="bucket"):
        assert not router.allow_relation(
            read_from(Product, "default"), read_from(Category, "tenant")
        )


def test_other_relations_are_not_ours(one_bucket: None) -> None:
    assert S3Router().allow_relation(User(), User()) is None


# Migrations


def test_s3models_migrate_to_the_bucket_only(one_bucket: None) -> None:
    assert router.allow_migrate_model("s3", Product)
    assert not router.allow_migrate_model("default", Product)
    assert not router.allow_migrate_model("other", Product)


def test_other_models_migrate_elsewhere_only(one_bucket: None) -> None:
    assert not router.allow_migrate_model("s3", User)
    assert router.allow_migrate_model("default", User)
    assert S3Router().allow_migrate("other", "auth", "user") is None


def test_a_historical_model_is_what_the_projects_model_is(one_bucket: None) -> None:
    before_it_was_one = historical(Product, bases=(models.Model,))
    no_more = historical(Note, bases=(InBucket, models.Model))

    assert lives_in_bucket(before_it_was_one)
    assert router.db_for_write(before_it_was_one) == "s3"
    assert router.allow_migrate_model("s3", before_it_was_one)
    assert not lives_in_bucket(no_more)
    assert not router.allow_migrate_model("s3", no_more)


def test_a_model_that_is_gone_is_what_it_was(one_bucket: None) -> None:
    gone = historical(Product, name="Gone")
    plain = historical(Note, name="GoneToo")

    assert router.db_for_write(gone) == "s3"
    assert router.allow_migrate_model("s3", gone)
    assert not router.allow_migrate_model("default", gone)
    assert router.allow_migrate_model("default", plain)
    assert not router.allow_migrate_model("s3", plain)


def test_a_model_named_by_a_hint_is_enough(one_bucket: None) -> None:
    assert router.allow_migrate("s3", "testapp", model_name="product")
    assert not router.allow_migrate("default", "testapp", model_name="product")
    assert not router.allow_migrate("s3", "testapp", model_name="note")


def test_operations_without_a_model_run_where_the_apps_models_live(
    one_bucket: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RunPython and RunSQL. The test app has models of both kinds.
    assert router.allow_migrate("s3", "testapp")
    assert router.allow_migrate("default", "testapp")
    assert not router.allow_migrate("s3", "auth")
    assert router.allow_migrate("default", "auth")
    assert router.allow_migrate("s3", "unknown")

    monkeypatch.setattr(
        type(apps.get_app_config("testapp")),
        "get_models",
        lambda self: iter([Product, Category]),
    )
    assert router.allow_migrate("s3", "testapp")
    assert not router.allow_migrate("default", "testapp")
