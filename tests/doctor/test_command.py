"""``manage.py s3cache_doctor``."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from s3cache.stores import DirectoryStore, Store
from tests.databases import databases
from tests.s3_server import S3Server


@pytest.fixture
def site(tmp_path: Path, s3_options: dict[str, Any]) -> Iterator[None]:
    """Two databases: ``default`` in a directory, ``other`` in a bucket."""
    storages = {
        "directory": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "store")},
        },
        "bucket": {
            "BACKEND": "tests.s3_server.SharedSessionStorage",
            "OPTIONS": s3_options,
        },
    }
    with (
        override_settings(STORAGES=storages),
        databases(
            default={"ENGINE": "s3cache.db", "OPTIONS": {"storage": "directory"}},
            other={"ENGINE": "s3cache.db", "OPTIONS": {"storage": "bucket"}},
            plain="sqlite",
        ),
    ):
        yield


def run(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("s3cache_doctor", *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


@pytest.mark.usefixtures("site")
def test_all_databases_are_looked_over(s3_store: Store) -> None:
    said = run()
    assert "Database 'default'" in said
    assert "Database 'other'" in said
    assert "keeps the promises that a database needs" in said
    assert "There is no database in" in said


@pytest.mark.usefixtures("site")
def test_one_database_as_json() -> None:
    said = json.loads(run("--database=default", "--json", "--hosts=2"))
    assert list(said) == ["default"]
    by_name = {one["about"]: one for one in said["default"]}
    assert by_name["store"]["level"] == "OK"
    assert by_name["latency"]["figures"]["put_seconds"] > 0


@pytest.mark.usefixtures("site")
def test_what_has_to_be_done_is_in_the_exit_status(
    s3_store: Store, s3_server: S3Server
) -> None:
    """The bucket of the tests is one that may become public."""
    run("--database=other")
    with pytest.raises(CommandError, match="Something has to be done") as caught:
        run("--database=other", "--fail-level=WARNING")
    assert caught.value.returncode == 1
    with (
        s3_server.fault("PUT", status=403, code="AccessDenied"),
        pytest.raises(CommandError),
    ):
        run("--database=other")


@pytest.mark.usefixtures("site")
def test_quiet_says_only_what_is_wrong(s3_store: Store) -> None:
    said = run("--database=other", verbosity=0)
    assert "WARNING" in said.upper()
    assert "keeps the promises" not in said


@pytest.mark.usefixtures("site")
def test_the_smallest_policy(s3_options: dict[str, Any]) -> None:
    said = json.loads(run("--database=other", "--policy"))
    arn = f"arn:aws:s3:::{s3_options['bucket_name']}"
    objects, bucket = said["Statement"]
    assert objects["Resource"] == f"{arn}/{s3_options['location']}/*"
    assert bucket == {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn}
    with pytest.raises(CommandError, match="needs no policy"):
        run("--database=default", "--policy")


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database=plain"], "'plain' is no database that lives in a bucket: there "),
        (["--hosts=0"], "--hosts is 0, but must be at least 1"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_a_project_without_such_a_database() -> None:
    with databases(default="sqlite"), pytest.raises(CommandError, match="No database"):
        run()


def test_the_directory_is_left_as_it_was(site: None, tmp_path: Path) -> None:
    run("--database=default")
    assert DirectoryStore(tmp_path / "store").list("").keys == ()
