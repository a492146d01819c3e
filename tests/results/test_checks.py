"""Whoever reads past the cache, or past the hot path, is told why."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.checks import CheckMessage
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from s3cache.checks import check_results
from s3cache.managers import S3Manager, S3QuerySet
from s3cache.models import S3Model
from tests.databases import databases
from tests.test_checks import App, bucket
from tests.testapp.models import Product

MEMORY = {"default": {"BACKEND": "s3cache.caches.MemoryCache"}}


@pytest.fixture(autouse=True)
def memory(settings: Any, hot_path: None) -> None:
    settings.CACHES = MEMORY


def said(*classes: type[models.Model]) -> list[tuple[str, str]]:
    """The ids and messages about these models, in a bucket."""
    found: list[CheckMessage]
    with databases(default=bucket()):
        found = check_results([App(*classes)])  # type: ignore[list-item]
    assert all(one.hint for one in found)
    return [(one.id or "", one.msg) for one in found]


def test_a_model_whose_reads_are_hot() -> None:
    assert said(Product) == []


@pytest.mark.parametrize(
    ("s3cache", "why"),
    [
        ({"CACHE": None}, "S3CACHE['CACHE'] is None"),
        ({"EXCLUDE": ["testapp"]}, "S3CACHE['EXCLUDE'] names it"),
        ({"INCLUDE": ["library"]}, "S3CACHE['INCLUDE'] does not name it"),
    ],
)
def test_settings_that_keep_a_model_out(s3cache: dict[str, object], why: str) -> None:
    with override_settings(S3CACHE=s3cache):
        assert said(Product) == [
            ("s3cache.I001", f"Reads of testapp.Product are not cached: {why}.")
        ]


def test_a_model_that_keeps_house() -> None:
    why = "it keeps house, and S3CACHE['INCLUDE'] does not name it"
    assert said(Session) == [
        ("s3cache.I001", f"Reads of sessions.Session are not cached: {why}.")
    ]


@isolate_apps()
def test_a_model_that_says_so_itself() -> None:
    class Own(S3Model):
        class Meta:
            app_label = "testapp"

        class S3Meta:
            cached = False

    assert said(Own) == [
        (
            "s3cache.I001",
            "Reads of testapp.Own are not cached: its S3Meta.cached is False.",
        )
    ]


@pytest.mark.parametrize("backend", ["dummy.DummyCache", "db.DatabaseCache"])
def test_a_cache_that_cannot_keep_results(settings: Any, backend: str) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": f"django.core.cache.backends.{backend}",
            "LOCATION": "results",
        }
    }
    kind = backend.partition(".")[2]
    assert said(Product) == [
        (
            "s3cache.W009",
            f"Reads of testapp.Product are not cached: CACHES['default'] is a {kind}.",
        )
    ]


@isolate_apps()
def test_managers_and_objects_that_are_never_hot() -> None:
    class Plain(S3Model):
        objects = models.Manager()  # type: ignore[assignment]

        class Meta:
            app_label = "testapp"

    class Few(S3Manager[Any]):
        def get_queryset(self) -> S3QuerySet[Any]:
            return S3QuerySet(self.model)

    class Fewer(S3Model):
        objects = Few()

        class Meta:
            app_label = "testapp"

    class Loud(S3QuerySet[Any]):
        def count(self) -> int:
            return super().count()

    class Counting(S3Model):
        objects = S3Manager.from_queryset(Loud)()

        class Meta:
            app_label = "testapp"

    class Upper(models.CharField):  # type: ignore[type-arg]
        def from_db_value(self, value: str, *args: object) -> str:
            return value.upper()

    class Loudly(S3Model):
        name = Upper(max_length=9)

        class Meta:
            app_label = "testapp"

    class Made(S3Model):
        class Meta:
            app_label = "testapp"

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    for model, why in (
        (Plain, "of its default manager: it is no S3Manager"),
        (Fewer, "of its default manager: it has a get_queryset() of its own"),
        (Counting, "of its default manager: its querysets have 'count' of their own"),
        (Loudly, "but for numbers: objects make something else of 'name'"),
        (Made, "but for numbers: its class has code of its own that makes objects"),
    ):
        message = f"Reads of {model._meta.label} are cached, but never hot, {why}."
        assert said(model) == [("s3cache.I002", message)]
    with override_settings(S3CACHE={"HOT_PATH": False}):
        assert said(Plain, Loudly) == []


def test_models_elsewhere_are_none_of_its_business() -> None:
    with databases(default="sqlite"):
        assert check_results([App(Product)]) == []  # type: ignore[list-item]
