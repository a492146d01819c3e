"""What ``manage.py check`` says of a project around its databases."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import CheckMessage, Warning
from django.core.files.storage import storages
from django.test import override_settings

from s3cache import checks, project_checks
from s3cache.log.entry import Entry, seal
from s3cache.log.keys import entry_key
from s3cache.stores import store_for
from s3cache.stores.s3 import S3Store
from tests.caches.conftest import Use, backend, locmem, use
from tests.databases import databases
from tests.docs.pages import page
from tests.doctor.test_bucket import EXPIRE, bucket, put_rules, rule
from tests.s3_server import S3Server

__all__ = ["bucket", "use"]

RYW = "s3cache.middleware.ReadYourWritesMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
ENGINES = "django.contrib.sessions.backends."


@pytest.fixture(autouse=True)
def storage(tmp_path: Path) -> Iterator[None]:
    """A directory as the STORAGES alias "files"."""
    options = {"location": tmp_path / "store"}
    backend = "django.core.files.storage.FileSystemStorage"
    files = {"BACKEND": backend, "OPTIONS": options}
    with override_settings(STORAGES={**storages.backends, "files": files}):
        yield


def database(storage: str = "files", **given: Any) -> dict[str, Any]:
    options = {"storage": storage, **given.pop("OPTIONS", {})}
    return {"ENGINE": "s3cache.db", "NAME": "replica", "OPTIONS": options, **given}


def ids(messages: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("s3cache.") for message in messages]


def test_a_sound_project_passes(use: Use) -> None:
    use(default=backend("MemoryCache"), files=backend("FileSystemCache"))
    with databases(default=database()):
        for check in (
            project_checks.check_blocks,
            project_checks.check_sessions,
            project_checks.check_middleware,
            project_checks.check_published,
            project_checks.check_networks,
            project_checks.check_keys_of_files,
            project_checks.check_keys_of_buckets,
            project_checks.check_room_for_results,
        ):
            assert check() == []


# Databases


def test_two_databases_with_one_replica() -> None:
    one, other = database(NAME="a/../replica"), database(NAME="replica")
    with databases(one=one, other=other, third=database(NAME="third")):
        [message] = checks.check_databases()
    assert message.id == "s3cache.E017"
    assert message.msg.startswith("The databases 'one', 'other' have one replica, /")


def test_requests_that_are_blocks() -> None:
    with databases(default=database(ATOMIC_REQUESTS=True)):
        assert project_checks.check_blocks() == [
            Warning(
                "DATABASES['default']['ATOMIC_REQUESTS'] is True: every view is one "
                "atomic() block, and reads in a block are not answered by the cache.",
                hint="Leave it out, and use atomic() where several writes belong "
                "together; or mark views that only read with "
                "django.db.transaction.non_atomic_requests.",
                id="s3cache.W016",
            )
        ]
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "ATOMIC_REQUESTS": True}
    with databases(default=sqlite):
        assert project_checks.check_blocks() == []


def test_a_database_on_one_machine(tmp_path: Path) -> None:
    with databases(default=database()):
        [message] = project_checks.check_directories()
    assert message.id == "s3cache.W015"
    assert str(tmp_path / "store") in message.msg


# Sessions


@pytest.mark.parametrize("engine", ["cached_db", "signed_cookies"])
def test_sessions_that_outlive_a_process(use: Use, engine: str) -> None:
    use(default=backend("MemoryCache"))
    with override_settings(SESSION_ENGINE=f"{ENGINES}{engine}"):
        assert project_checks.check_sessions() == []


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        ({"default": backend("MemoryCache")}, ["W011"]),
        ({"default": locmem()}, ["W011"]),
        ({"default": backend("FileSystemCache")}, []),
        (
            {
                "default": backend("TieredCache", tiers=["near", "far"]),
                "near": backend("MemoryCache"),
                "far": backend("FileSystemCache"),
            },
            [],
        ),
        (
            {
                "default": backend("ShardedCache", shards=["near", "far"]),
                "near": backend("MemoryCache"),
                "far": backend("FileSystemCache"),
            },
            ["W011"],
        ),
        (
            {
                "default": backend("TieredCache", tiers=["near", "nowhere"]),
                "near": backend("TieredCache", tiers=["default"]),
            },
            [],  # E014 says what is wrong
        ),
    ],
)
def test_sessions_in_a_cache(use: Use, tiers: Any, expected: list[str]) -> None:
    with override_settings(SESSION_ENGINE=f"{ENGINES}cache"):
        try:
            use(**tiers)
        except Exception as error:  # another check says the same
            del error
        assert ids(project_checks.check_sessions()) == expected


def test_sessions_that_every_request_saves() -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        with databases(default=database()):
            assert ids(project_checks.check_sessions()) == ["W012"]
            with override_settings(SESSION_ENGINE=f"{ENGINES}signed_cookies"):
                assert project_checks.check_sessions() == []
        with databases(default="sqlite", s3=database()):
            assert project_checks.check_sessions() == []


# Middleware


def test_middleware_in_the_wrong_order() -> None:
    with override_settings(MIDDLEWARE=[SESSIONS, RYW]):
        assert project_checks.check_middleware() == [
            Warning(
                f"{RYW} comes after {SESSIONS} in MIDDLEWARE, and does not see what "
                "that one does.",
                hint=f"Place it before {SESSIONS}.",
                id="s3cache.W013",
            )
        ]
    for order in ([RYW, SESSIONS], [SESSIONS], [RYW], []):
        with override_settings(MIDDLEWARE=order):
            assert project_checks.check_middleware() == []


def test_the_order_that_the_documentation_gives_is_right() -> None:
    text = page("reference/middleware.md").text
    order = [*re.findall(r'^    "(s3cache\.middleware\.\w+)",$', text, re.M), SESSIONS]
    assert {*order} >= {*project_checks.BEFORE}
    with override_settings(MIDDLEWARE=order):
        assert project_checks.check_middleware() == []
    with override_settings(MIDDLEWARE=order[::-1]):
        assert len(project_checks.check_middleware()) == 10


# What is published, and what is elsewhere


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("store", {"MEDIA_ROOT": "."}),
        ("store", {"STATIC_ROOT": "store"}),
        ("store", {"STATICFILES_DIRS": ["store"]}),
        ("store", {"STATICFILES_DIRS": [("prefix", "store")]}),
        ("replica", {"MEDIA_ROOT": "replicas"}),
        ("cache", {"MEDIA_ROOT": "files"}),
    ],
)
def test_what_lies_where_it_is_published(
    use: Use, tmp_path: Path, place: str, options: dict[str, Any]
) -> None:
    use(files={**backend("FileSystemCache"), "LOCATION": str(tmp_path / "files/cache")})

    def below(value: Any) -> Any:
        if isinstance(value, list):
            return [below(one) for one in value]
        if isinstance(value, tuple):
            return value[0], below(value[1])
        return str(tmp_path / value)

    published = {name: below(value) for name, value in options.items()}
    name = tmp_path / "replicas" / "replica"
    with databases(default=database(NAME=name)), override_settings(**published):
        found = project_checks.check_published()
    assert {message.id for message in found} == {"s3cache.E018"}
    assert any(place in message.msg for message in found)


def test_objects_that_everybody_may_read(bucket: S3Store) -> None:
    with databases(default=database("own")):
        assert project_checks.check_published() == []
        bucket.storage.default_acl = "public-read"
        [message] = project_checks.check_published()
    assert message.id == "s3cache.E018"
    assert "the default_acl 'public-read'" in message.msg


def test_files_on_other_machines(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(files=backend("FileSystemCache"))
    table = tmp_path / "mounts"
    table.write_text(f"server:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("s3cache.mounts.MOUNTS", table)
    with databases(default=database()):
        messages = [message.msg for message in project_checks.check_networks()]
    assert messages == [
        f"{what} lies on a network file system ({tmp_path / name} is on nfs4)."
        for what, name in (
            ("The store of the database 'default'", "store"),
            ("The cache 'files'", "files"),
        )
    ]


# Caches


def test_results_in_djangos_own_cache(use: Use) -> None:
    with databases(default=database()):
        use(default=locmem())
        assert ids(project_checks.check_room_for_results()) == ["W010"]
        use(default={**locmem(), "OPTIONS": {"MAX_ENTRIES": 100_000}})
        assert project_checks.check_room_for_results() == []
        use(default=locmem(), results=backend("MemoryCache"))
        for cache in ("results", None):
            with override_settings(S3CACHE={"CACHE": cache}):
                assert project_checks.check_room_for_results() == []
    with databases(default="sqlite"):
        assert project_checks.check_room_for_results() == []


def test_a_secret_key_that_was_changed(use: Use) -> None:
    files = {"files": backend("FileSystemCache"), "empty": backend("FileSystemCache")}
    use(**files)
    caches["files"].set("key", "value")
    with override_settings(SECRET_KEY="new"):
        use(**files)
        [message] = project_checks.check_keys_of_files()
        assert message.id == "s3cache.W014"
        assert "CACHES['files']" in message.msg
    with override_settings(
        SECRET_KEY="new", SECRET_KEY_FALLBACKS=["not a secret: tests only"]
    ):
        use(**files)
        assert project_checks.check_keys_of_files() == []


def test_a_cache_that_is_not_there_yet_is_not_made(use: Use, tmp_path: Path) -> None:
    use(files=backend("FileSystemCache"))
    assert project_checks.check_keys_of_files() == []
    assert not (tmp_path / "files").exists()


def test_a_secret_key_that_was_changed_and_a_bucket(use: Use, bucket: S3Store) -> None:
    far = {**backend("S3Cache", storage="own"), "LOCATION": "far"}
    use(far=far)
    for number in range(12):
        caches["far"].set(f"key{number}", "value")
    use(far=far)
    before = bucket.requests
    assert project_checks.check_keys_of_buckets() == []
    assert (bucket.requests - before).total == 2
    with override_settings(SECRET_KEY="new"):
        use(far=far)
        before = bucket.requests
        assert ids(project_checks.check_keys_of_buckets()) == ["W014"]
        spent = bucket.requests - before
        assert (spent.list, spent.get) == (1, 10)


# Stores: with --database


check_store = functools.partial(checks.check_stores, databases=["default"])


def test_a_bucket_that_would_publish_or_delete_a_database(bucket: S3Store) -> None:
    with databases(default=database("own")):
        assert check_store() == []
        put_rules(bucket, rule("db/", **EXPIRE))
        bucket.client.put_bucket_acl(Bucket=bucket.bucket, ACL="public-read")
        deletes, publishes = check_store()
    assert deletes.id == publishes.id == "s3cache.E019"
    assert deletes.msg.endswith("rule 'tidy' deletes objects of the database.")
    assert publishes.msg.endswith("The bucket is public, by its ACL.")


def test_credentials_that_may_not_look_are_no_error(
    bucket: S3Store, s3_server: S3Server
) -> None:
    with (
        databases(default=database("own")),
        s3_server.fault("GET", f"/{bucket.bucket}", status=403, code="AccessDenied"),
    ):
        messages = check_store()
    assert "E019" not in ids(messages)


def test_signing_keys_that_were_changed() -> None:
    def write(number: int, *keys: bytes) -> None:
        entry = Entry("db", number, f"token{number}", "", "host", [])
        sealed = seal(entry, key=entry_key(number), blob_key="", signing_keys=keys)
        store_for("files").put(entry_key(number), sealed.body)

    write(1, b"old")
    keys = {"signing_keys": ["new"]}
    with databases(default=database(OPTIONS=keys)):
        [message] = check_store()
        assert message.id == "s3cache.E020"
        assert "000000000001 is not signed by any of the keys" in message.msg
    with databases(default=database(OPTIONS={"signing_keys": ["new", "old"]})):
        assert check_store() == []
    write(2, b"new")
    with databases(default=database(OPTIONS=keys)):
        assert check_store() == []
