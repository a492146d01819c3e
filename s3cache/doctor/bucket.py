"""How a bucket is configured: what would delete, hide or publish a database.

All of it is read from S3's configuration APIs, which the database itself
does not need. Credentials that may not use them leave a question open, and a
store that does not have them is believed to have no such feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from s3cache.doctor.findings import Finding, Level
from s3cache.stores.s3 import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Where caches lie that share the location of a database.
CACHES = "cache/"

#: Objects in these cannot be read without being restored first.
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}

#: Answers that say that nothing of the kind is configured.
_NOT_CONFIGURED = {
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchBucketPolicy",
    "ObjectLockConfigurationNotFoundError",
}
_NOT_THERE = {"NotImplemented", "MethodNotAllowed", "XNotImplemented"}

_EVERYBODY = {
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
}


class _Unknown(Exception):
    """A question that was not answered."""


def examine_bucket(store: S3Store) -> Iterator[Finding]:
    """Look the configuration of a database's bucket over."""
    for about, look, permission in (
        ("lifecycle", _lifecycle, "s3:GetLifecycleConfiguration"),
        ("versioning", _versioning, "s3:GetBucketVersioning"),
        ("object-lock", _object_lock, "s3:GetBucketObjectLockConfiguration"),
        (
            "public-access",
            _public_access,
            "s3:GetBucketPublicAccessBlock, s3:GetBucketPolicyStatus, s3:GetBucketAcl",
        ),
    ):
        try:
            yield from look(store)
        except _Unknown as error:
            yield Finding(
                about,
                Level.NOTE,
                f"The bucket's {about.replace('-', ' ')} could not be looked at: "
                f"{error}.",
                f"Run this with credentials that are allowed {permission}. The "
                "database itself does not need it.",
            )


def _ask(question: Callable[[], Any]) -> dict[str, Any] | None:
    """The answer, or None where nothing is configured."""
    try:
        answer: dict[str, Any] = question()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _NOT_CONFIGURED or code in _NOT_THERE:
            return None
        raise _Unknown(code or str(error)) from error
    except BotoCoreError as error:
        raise _Unknown(str(error)) from error
    return answer


# Lifecycle rules


def _lifecycle(store: S3Store) -> Iterator[Finding]:
    harmless = True
    for rule in _rules(store):
        found = list(_of_rule(rule, store.location))
        harmless = harmless and not found
        yield from found
    if harmless:
        yield Finding(
            "lifecycle",
            Level.OK,
            "No lifecycle rule removes or moves current objects of the database.",
        )


def _rules(store: S3Store) -> list[dict[str, Any]]:
    client: S3Client = store.client
    answer = _ask(
        lambda: client.get_bucket_lifecycle_configuration(Bucket=store.bucket)
    )
    rules: list[dict[str, Any]] = (answer or {}).get("Rules", [])
    return rules


def _of_rule(rule: dict[str, Any], location: str) -> Iterator[Finding]:
    if rule.get("Status") != "Enabled" or not _concerns(rule, location):
        return
    name = rule.get("ID", "")
    label = f"The lifecycle rule {name!r}" if name else "A lifecycle rule"
    narrower = (
        f"Let it have a prefix that is not {location!r} nor above or below it, or "
        "have it remove noncurrent versions only."
    )
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        yield Finding(
            "lifecycle",
            Level.ERROR,
            f"{label} deletes objects of the database.",
            f"Disable it now: the log and the packs are the data. {narrower}",
        )
    for transition in rule.get("Transitions", []):
        kind = transition.get("StorageClass", "")
        if kind in _ARCHIVES:
            yield Finding(
                "lifecycle",
                Level.ERROR,
                f"{label} moves objects of the database to {kind}, where they cannot "
                "be read.",
                f"Disable it now. {narrower}",
            )
        else:
            yield Finding(
                "lifecycle",
                Level.WARNING,
                f"{label} moves objects of the database to {kind}.",
                "The objects of a database are small and change often; classes for "
                f"rare access bill a minimum size and time for each. {narrower}",
            )


def _concerns(rule: dict[str, Any], location: str) -> bool:
    """Whether a rule may touch the database in ``location``.

    One with a filter by tags or sizes may, as one with a prefix above the
    location or below it. Caches, which may lie there too, can be expired.
    """
    where = rule.get("Filter", {})
    both = where.get("And", {})
    prefix = str(rule.get("Prefix") or where.get("Prefix") or both.get("Prefix") or "")
    below = f"{location}/" if location else ""
    if prefix.startswith(f"{below}{CACHES}"):
        return False
    return below.startswith(prefix) or prefix.startswith(below)


# Versions and locks


def _versioning(store: S3Store) -> Iterator[Finding]:
    answer = _ask(lambda: store.client.get_bucket_versioning(Bucket=store.bucket))
    status = (answer or {}).get("Status", "")
    if status != "Enabled":
        yield Finding(
            "versioning",
            Level.NOTE,
            "The bucket keeps no versions"
            + (" any more" if status == "Suspended" else "")
            + ": what somebody deletes is gone.",
            "Enable versioning, with a lifecycle rule that removes noncurrent "
            "versions after some days; then a deleted object can be restored.",
        )
    elif not _removes_old_versions(store):
        yield Finding(
            "versioning",
            Level.WARNING,
            "The bucket keeps versions, and nothing removes old ones: storage grows "
            "for ever, and what is erased from the database stays in them.",
            "Add a lifecycle rule with NoncurrentVersionExpiration, of 30 days for "
            "example.",
        )
    else:
        yield Finding(
            "versioning",
            Level.OK,
            "The bucket keeps versions, and old ones are removed.",
        )


def _removes_old_versions(store: S3Store) -> bool:
    return any(
        rule.get("Status") == "Enabled"
        and "NoncurrentVersionExpiration" in rule
        and _concerns(rule, store.location)
        for rule in _rules(store)
    )


def _object_lock(store: S3Store) -> Iterator[Finding]:
    answer = _ask(
        lambda: store.client.get_object_lock_configuration(Bucket=store.bucket)
    )
    locked = (answer or {}).get("ObjectLockConfiguration", {})
    retention = locked.get("Rule", {}).get("DefaultRetention", {})
    if not retention:
        yield Finding("object-lock", Level.OK, "No object is locked by default.")
        return
    period = (
        f"{retention['Days']} days"
        if "Days" in retention
        else f"{retention.get('Years')} years"
    )
    yield Finding(
        "object-lock",
        Level.WARNING,
        f"Object Lock ({retention.get('Mode')}) keeps every object for {period}: what "
        "is trimmed or erased stays in old versions, and is paid for, until then.",
        "Remove the bucket's default retention unless that is what you want.",
    )


# Who may read it


def _public_access(store: S3Store) -> Iterator[Finding]:
    client, bucket = store.client, store.bucket
    answer = _ask(lambda: client.get_public_access_block(Bucket=bucket))
    blocked = (answer or {}).get("PublicAccessBlockConfiguration", {})
    if all(
        blocked.get(name)
        for name in (
            "BlockPublicAcls",
            "IgnorePublicAcls",
            "BlockPublicPolicy",
            "RestrictPublicBuckets",
        )
    ):
        yield Finding("public-access", Level.OK, "Public access is blocked.")
        return
    advice = "Enable all four settings of the bucket's Block Public Access."
    status = _ask(lambda: client.get_bucket_policy_status(Bucket=bucket))
    by_policy = bool((status or {}).get("PolicyStatus", {}).get("IsPublic"))
    by_acl = _is_public_by_acl(store)
    if by_policy or by_acl:
        yield Finding(
            "public-access",
            Level.ERROR,
            f"The bucket is public, by its {'policy' if by_policy else 'ACL'}.",
            advice,
        )
    else:
        yield Finding(
            "public-access",
            Level.WARNING,
            "The bucket is not public, but nothing keeps it from becoming so.",
            advice,
        )


def _is_public_by_acl(store: S3Store) -> bool:
    answer = _ask(lambda: store.client.get_bucket_acl(Bucket=store.bucket))
    return any(
        grant.get("Grantee", {}).get("URI") in _EVERYBODY
        for grant in (answer or {}).get("Grants", [])
    )
