"""From an alias to a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from s3cache.stores import DirectoryStore, store_for
from s3cache.stores.s3 import S3Store

FILES = "django.core.files.storage.FileSystemStorage"


def storages(**aliases: dict[str, Any]) -> override_settings:
    return override_settings(STORAGES=aliases)


def test_an_s3_storage(s3_options: dict[str, Any]) -> None:
    backend = "storages.backends.s3.S3Storage"
    with storages(bucket={"BACKEND": backend, "OPTIONS": s3_options}):
        store = store_for("bucket")
        assert isinstance(store, S3Store)
        assert store.name == f"s3://s3cache-tests/{s3_options['location']}"
        assert store.get("key").status == 404


def test_a_file_system_storage(tmp_path: Path) -> None:
    options = {
        "location": str(tmp_path / "store"),
        "file_permissions_mode": 0o640,
        "directory_permissions_mode": 0o750,
    }
    with storages(directory={"BACKEND": FILES, "OPTIONS": options}):
        store = store_for("directory")
        assert isinstance(store, DirectoryStore)
        assert store.root == tmp_path / "store"
        store.put("dir/key", b"")
    assert (store.root / "dir/key").stat().st_mode & 0o777 == 0o640
    assert (store.root / "dir").stat().st_mode & 0o777 == 0o750


def test_one_store_per_alias_until_settings_change(tmp_path: Path) -> None:
    def directory(name: str) -> dict[str, Any]:
        return {"BACKEND": FILES, "OPTIONS": {"location": str(tmp_path / name)}}

    with storages(one=directory("1"), two=directory("2")):
        first = store_for("one")
        assert store_for("one") is first
        assert store_for("two").name == str(tmp_path / "2")
    with storages(one=directory("3")):
        assert store_for("one").name == str(tmp_path / "3")


def refused(alias: str) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        store_for(alias)
    return str(caught.value)


def test_an_alias_that_is_not_there() -> None:
    with storages():
        assert refused("missing").startswith(
            "STORAGES['missing'] cannot be used as a store: Could not find config"
        )


def test_another_kind_of_storage() -> None:
    backend = "django.core.files.storage.InMemoryStorage"
    with storages(memory={"BACKEND": backend}):
        assert refused("memory") == (
            "STORAGES['memory'] is a django.core.files.storage.memory.InMemoryStorage; "
            "a store needs storages.backends.s3.S3Storage or "
            "django.core.files.storage.FileSystemStorage, or a subclass"
        )


def test_the_media_root_is_refused() -> None:
    with storages(default={"BACKEND": FILES}):
        assert refused("default") == (
            "STORAGES['default']['OPTIONS'] needs a 'location' of its own: "
            "MEDIA_ROOT, the default, is served to the public"
        )


def test_a_directory_needs_no_boto3() -> None:
    code = "import sys, s3cache.stores; print('botocore' in sys.modules)"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"
