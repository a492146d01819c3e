"""
Each check alone: what it is about brings its id, and no other.

All checks run over a whole project each time, those of deployments too. One
that is sound brings none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import checks as django_checks
from django.core.cache import caches
from django.core.checks import CheckMessage
from django.core.files.storage import storages
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from s3cache import checks, conf
from s3cache.exceptions import StoreUnavailable
from s3cache.log.entry import Entry, seal
from s3cache.log.keys import entry_key
from s3cache.managers import S3Manager
from s3cache.models import S3Model
from s3cache.stores.s3 import S3Store
from tests.caches.conftest import Use, backend, locmem, use
from tests.databases import databases
from tests.doctor.test_bucket import BLOCKED, bucket
from tests.s3_server import S3Server
from tests.test_checks import App
from tests.testapp.models import Product

__all__ = ["bucket", "use"]

MEMORY = backend("MemoryCache", max_memory_bytes=10**6)
REDIS = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://nowhere/0"}
SESSIONS = "django.contrib.sessions.backends."

Models = list[type[models.Model]]


@dataclass
class Site:
    """A sound project, and what a case needs to spoil it."""

    store: S3Store
    server: S3Server
    use: Use
    path: Path
    patch: pytest.MonkeyPatch

    def database(self, storage: str = "own", **given: Any) -> dict[str, Any]:
        """An entry of DATABASES, with other OPTIONS."""
        name = given.pop("NAME", self.path / "replica")
        options = {"storage": storage, **given.pop("OPTIONS", {})}
        return {"ENGINE": "s3cache.db", "NAME": name, "OPTIONS": options, **given}

    def mounted(self, kind: str) -> None:
        """Let all files be on such a file system."""
        table = self.path / "mounts"
        table.write_text(f"somewhere {self.path} {kind} rw 0 0\n")
        self.patch.setattr("s3cache.mounts.MOUNTS", table)


@pytest.fixture
def site(
    bucket: S3Store,
    s3_server: S3Server,
    use: Use,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    bucket.client.put_public_access_block(
        Bucket=bucket.bucket, PublicAccessBlockConfiguration=BLOCKED
    )
    files = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "store"},
    }
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    use(default=MEMORY)
    known = {**storages.backends, "files": files, "default": memory}
    with override_settings(STORAGES=known, S3CACHE={}):
        yield Site(bucket, s3_server, use, tmp_path, monkeypatch)


def said(
    *classes: type[models.Model], databases: Sequence[str] = ()
) -> list[CheckMessage]:
    """What all checks of ours say, with these models."""
    app: Any = App(*classes)
    return django_checks.run_checks(
        app_configs=[app],
        tags=[checks.TAG],
        include_deployment_checks=True,
        databases=databases,
    )


Case = Callable[[Site], AbstractContextManager[Models | None]]
CASES: dict[str, Case] = {}

#: What only shows with ``--database``, which takes thirty requests.
OF_STORES = {"s3cache.E011", "s3cache.E019", "s3cache.E020", "s3cache.W005"}


def case(id: str) -> Callable[[Callable[[Site], Iterator[Models | None]]], None]:
    """What brings that id, while it lasts; it gives the models that matter."""

    def note(spoil: Callable[[Site], Iterator[Models | None]]) -> None:
        CASES[f"s3cache.{id}"] = contextmanager(spoil)

    return note


def with_database(id: str, storage: str = "own", **given: Any) -> None:
    @case(id)
    def spoil(site: Site) -> Iterator[None]:
        with databases(default=site.database(storage, **given)):
            yield


def with_settings(id: str, **given: Any) -> None:
    @case(id)
    def spoil(site: Site) -> Iterator[None]:
        with databases(default=site.database()), override_settings(**given):
            yield


def with_caches(id: str, **aliases: Any) -> None:
    @case(id)
    def spoil(site: Site) -> Iterator[None]:
        with databases(default=site.database()):
            site.use(**{"default": MEMORY, **aliases})
            yield


with_database("E002", OPTIONS={"max_age": -1})
with_database("E003", "nowhere")
with_database("E004", "default")
with_database("E015", OPTIONS={"redis": "nowhere"})
with_database("W003", OPTIONS={"max_age": 0})
with_database("W015", "files")
with_database("W016", ATOMIC_REQUESTS=True)
with_settings("E005", S3CACHE={"LIFETIME": 1})
with_settings("E006", S3CACHE={"CACHE": "nowhere"})
with_settings("E007", S3CACHE={"INCLUDE": ["testapp", "nowhere"]})
with_settings("I001", S3CACHE={"EXCLUDE": ["testapp"]})
with_settings("W011", SESSION_ENGINE=f"{SESSIONS}cache")
with_settings("W012", SESSION_SAVE_EVERY_REQUEST=True)
with_settings(
    "W013",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "s3cache.middleware.ReadYourWritesMiddleware",
    ],
)
with_settings(
    "W018", DATABASE_ROUTERS=[conf.TENANT_ROUTER], S3CACHE={"OPEN_TENANTS": 10**6}
)
with_caches("E013", other=backend("MemoryCache", policy="mru", max_memory_bytes=10**6))
with_caches("E014", other=backend("TieredCache", tiers=["nowhere"]))
with_caches(
    "E016",
    default=backend("TieredCache", tiers=["near"]),
    near=backend("MemoryCache", broadcast="redis", max_memory_bytes=10**6),
    redis=REDIS,
)
with_caches("W006", other=backend("TieredCache", tiers=["redis"]), redis=REDIS)
with_caches("W007", other=backend("MemoryCache"))
with_caches("W008", other=backend("MemoryCache", max_memory_bytes=2**60))
with_caches("W009", default={"BACKEND": "django.core.cache.backends.dummy.DummyCache"})
with_caches("W010", default=locmem())


@case("E001")
def _(site: Site) -> Iterator[None]:
    with databases(default=site.database()):
        site.patch.setattr(sys, "platform", "win32")
        yield


@case("E008")
def _(site: Site) -> Iterator[None]:
    with databases(router=False, default="sqlite", s3=site.database()):
        yield


@case("E011")
def _(site: Site) -> Iterator[None]:
    with (
        databases(default=site.database()),
        site.server.fault("PUT", site.store.bucket, status=403, code="AccessDenied"),
    ):
        yield


@case("E012")
def _(site: Site) -> Iterator[None]:
    other = site.database(NAME=site.path / "other")
    with databases(default="sqlite", one=site.database(), other=other):
        yield


@case("E017")
def _(site: Site) -> Iterator[Models]:
    with databases(default=site.database(), other=site.database()):
        yield []


@case("E018")
def _(site: Site) -> Iterator[None]:
    with (
        databases(default=site.database()),
        override_settings(MEDIA_ROOT=str(site.path)),
    ):
        yield


@case("E019")
def _(site: Site) -> Iterator[None]:
    client, name = site.store.client, site.store.bucket
    client.delete_public_access_block(Bucket=name)
    client.put_bucket_acl(Bucket=name, ACL="public-read")
    with databases(default=site.database()):
        yield


@case("E020")
def _(site: Site) -> Iterator[None]:
    key = entry_key(1)
    entry = Entry("db", 1, "token", "", "host", [])
    sealed = seal(entry, key=key, blob_key="", signing_keys=[b"old"])
    site.store.put(key, sealed.body)
    with databases(default=site.database(OPTIONS={"signing_keys": ["new"]})):
        yield


@case("W001")
def _(site: Site) -> Iterator[None]:
    site.mounted("tmpfs")
    with databases(default=site.database()):
        yield


@case("W002")
def _(site: Site) -> Iterator[None]:
    site.mounted("nfs4")
    with databases(default=site.database()):
        yield


@case("W005")
def _(site: Site) -> Iterator[None]:
    def probe(store: object) -> None:
        raise StoreUnavailable("timeout")

    site.patch.setattr(checks, "probe", probe)
    with databases(default=site.database()):
        yield


@case("W014")
def _(site: Site) -> Iterator[None]:
    site.use(default=MEMORY, files=backend("FileSystemCache"))
    caches["files"].set("key", "value")
    with databases(default=site.database()), override_settings(SECRET_KEY="new"):
        site.use(default=MEMORY, files=backend("FileSystemCache"))
        yield


@case("W017")
def _(site: Site) -> Iterator[None]:
    site.mounted("nfs4")
    site.use(default=MEMORY, files=backend("FileSystemCache"))
    with databases(default=site.database(NAME="/replica")):
        yield


# Models


@case("E009")
def _(site: Site) -> Iterator[Models]:
    options = type("S3Meta", (), {"partitions": {"odd": ["regoin"]}})
    with model(S3Meta=options) as made, databases(default=site.database()):
        yield [made]


@case("E010")
def _(site: Site) -> Iterator[Models]:
    wide = models.DecimalField(max_digits=16, decimal_places=2)
    with model(wide=wide) as made, databases(default=site.database()):
        yield [made]


@case("E021")
def _(site: Site) -> Iterator[Models]:
    options = type("S3Meta", (), {"write_behind": True})
    code = models.CharField(max_length=9, unique=True)
    with model(S3Meta=options, code=code) as made, databases(default=site.database()):
        yield [made]


@case("I002")
def _(site: Site) -> Iterator[Models]:
    class Own(S3Manager[Any]):
        def get_queryset(self) -> Any:
            return super().get_queryset()

    with model(objects=Own()) as made, databases(default=site.database()):
        yield [made]


@case("W004")
def _(site: Site) -> Iterator[Models]:
    owner = models.ForeignKey(User, models.CASCADE)
    with (
        model(owner=owner) as made,
        databases(default="sqlite", s3=site.database()),
    ):
        yield [made]


@contextmanager
def model(**attributes: Any) -> Iterator[type[S3Model]]:
    with isolate_apps("tests.testapp"):
        meta = type("Meta", (), {"app_label": "testapp"})
        own = {"__module__": __name__, "Meta": meta, **attributes}
        yield type("Thing", (S3Model,), own)


def test_a_sound_project(site: Site) -> None:
    with databases(default=site.database()), model() as made:
        assert said(Product, made, databases=["default"]) == []


@pytest.mark.parametrize("id", sorted(CASES))
def test_one_thing_is_wrong(site: Site, id: str) -> None:
    with CASES[id](site) as classes:
        looked_at = [Product] if classes is None else classes
        found = said(*looked_at, databases=["default"] if id in OF_STORES else [])
        if id in OF_STORES:
            assert said(*looked_at) == []
    assert {one.id for one in found} == {id}
    for one in found:
        assert one.hint, one.msg  # what to do about it


def test_there_is_a_case_for_each() -> None:
    listed = re.findall(r"s3cache\.[EWI]\d{3}", checks.__doc__ or "")
    assert sorted(CASES) == sorted(listed)
