"""What the configuration of a bucket does to a database in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.storage import storages
from django.test import override_settings

from s3cache.doctor.bucket import examine_bucket
from s3cache.doctor.findings import Level
from s3cache.stores import store_for
from s3cache.stores.s3 import S3Store
from tests.s3_server import S3Server

BLOCKED: Any = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


@pytest.fixture
def bucket(s3_server: S3Server, s3_options: dict[str, Any]) -> Iterator[S3Store]:
    """A bucket of its own, with a database below ``db``."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_server.create_bucket(name)
    storage = {
        "BACKEND": "tests.s3_server.SharedSessionStorage",
        "OPTIONS": {**s3_options, "bucket_name": name, "location": "db"},
    }
    with override_settings(STORAGES={**storages.backends, "own": storage}):
        store = store_for("own")
        assert isinstance(store, S3Store)
        yield store


def levels(store: S3Store, about: str) -> list[Level]:
    found = [one for one in examine_bucket(store) if one.about == about]
    assert all(one.advice for one in found if one.level is not Level.OK)
    return [one.level for one in found]


def message(store: S3Store, about: str) -> str:
    return next(one.message for one in examine_bucket(store) if one.about == about)


# Lifecycle rules


def rule(prefix: str = "", **what: Any) -> dict[str, Any]:
    return {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": prefix}, **what}


def put_rules(store: S3Store, *rules: Any) -> None:
    store.client.put_bucket_lifecycle_configuration(
        Bucket=store.bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


EXPIRE: dict[str, Any] = {"Expiration": {"Days": 30}}


def to(kind: str) -> dict[str, Any]:
    return {"Transitions": [{"Days": 30, "StorageClass": kind}]}


@pytest.mark.parametrize(
    ("prefix", "what", "level"),
    [
        ("", EXPIRE, Level.ERROR),
        ("d", EXPIRE, Level.ERROR),
        ("db/", EXPIRE, Level.ERROR),
        ("db/_log/", EXPIRE, Level.ERROR),
        ("logs/", EXPIRE, Level.OK),
        ("db2/", EXPIRE, Level.OK),
        ("db/cache/", EXPIRE, Level.OK),
        ("db/", {"NoncurrentVersionExpiration": {"NoncurrentDays": 9}}, Level.OK),
        ("db/", to("DEEP_ARCHIVE"), Level.ERROR),
        ("db/", to("GLACIER"), Level.ERROR),
        ("db/", to("STANDARD_IA"), Level.WARNING),
        ("db/", {**EXPIRE, "Status": "Disabled"}, Level.OK),
    ],
)
def test_a_lifecycle_rule(
    bucket: S3Store, prefix: str, what: dict[str, Any], level: Level
) -> None:
    put_rules(bucket, {**rule(prefix), **what})
    assert levels(bucket, "lifecycle") == [level]


def test_a_rule_is_named_and_there_is_advice(bucket: S3Store) -> None:
    put_rules(bucket, rule("db/", **EXPIRE))
    found = next(one for one in examine_bucket(bucket) if one.about == "lifecycle")
    assert found.message == (
        "The lifecycle rule 'tidy' deletes objects of the database."
    )
    assert "Disable it now" in found.advice


def test_without_rules_all_is_well(bucket: S3Store) -> None:
    assert levels(bucket, "lifecycle") == [Level.OK]


# Versions and locks


def enable_versions(store: S3Store, status: Any = "Enabled") -> None:
    store.client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": status}
    )


def test_a_bucket_without_versions_gets_a_note(bucket: S3Store) -> None:
    assert levels(bucket, "versioning") == [Level.NOTE]
    enable_versions(bucket)
    enable_versions(bucket, "Suspended")
    assert levels(bucket, "versioning") == [Level.NOTE]


def test_versions_that_nothing_removes_are_a_warning(bucket: S3Store) -> None:
    enable_versions(bucket)
    assert levels(bucket, "versioning") == [Level.WARNING]
    put_rules(bucket, rule(NoncurrentVersionExpiration={"NoncurrentDays": 30}))
    assert levels(bucket, "versioning") == [Level.OK]


def test_a_default_retention_is_a_warning(s3_server: S3Server, bucket: S3Store) -> None:
    assert levels(bucket, "object-lock") == [Level.OK]
    enable_versions(bucket)
    bucket.client.put_object_lock_configuration(
        Bucket=bucket.bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 400}},
        },
    )
    assert levels(bucket, "object-lock") == [Level.WARNING]
    assert "(COMPLIANCE) keeps every object for 400 days" in message(
        bucket, "object-lock"
    )


# Who may read it


def test_blocked_public_access_is_well(bucket: S3Store) -> None:
    bucket.client.put_public_access_block(
        Bucket=bucket.bucket, PublicAccessBlockConfiguration=BLOCKED
    )
    assert levels(bucket, "public-access") == [Level.OK]


def test_what_may_become_public_is_a_warning(bucket: S3Store) -> None:
    nearly: Any = {**BLOCKED, "BlockPublicPolicy": False}
    bucket.client.put_public_access_block(
        Bucket=bucket.bucket,
        PublicAccessBlockConfiguration=nearly,
    )
    assert levels(bucket, "public-access") == [Level.WARNING]


def test_a_public_bucket_is_an_error(bucket: S3Store) -> None:
    bucket.client.put_bucket_acl(Bucket=bucket.bucket, ACL="public-read")
    assert levels(bucket, "public-access") == [Level.ERROR]
    assert message(bucket, "public-access") == "The bucket is public, by its ACL."


def test_a_bucket_that_its_policy_makes_public(
    bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(**asked: str) -> dict[str, Any]:
        assert asked == {"Bucket": bucket.bucket}
        return {"PolicyStatus": {"IsPublic": True}}

    monkeypatch.setattr(bucket.client, "get_bucket_policy_status", status)
    assert levels(bucket, "public-access") == [Level.ERROR]
    assert message(bucket, "public-access") == "The bucket is public, by its policy."


# Questions without an answer


def test_credentials_that_may_not_look_leave_the_question_open(
    bucket: S3Store, s3_server: S3Server
) -> None:
    with s3_server.fault("GET", status=403, code="AccessDenied"):
        found = list(examine_bucket(bucket))
    assert {one.level for one in found} == {Level.NOTE}
    assert "AccessDenied" in found[0].message
    assert "s3:GetLifecycleConfiguration" in found[0].advice


def test_a_store_that_knows_no_such_thing_has_none(
    bucket: S3Store, s3_server: S3Server
) -> None:
    with s3_server.fault("GET", status=501, code="NotImplemented"):
        found = {one.about: one.level for one in examine_bucket(bucket)}
    assert found["lifecycle"] is found["object-lock"] is Level.OK
