"""The settings, as the environment has them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from example_project import settings


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The settings module as it is with these variables."""

    def load(**variables: str) -> Any:
        monkeypatch.setenv("EXAMPLE_VAR", str(tmp_path))
        for name, value in variables.items():
            monkeypatch.setenv(f"EXAMPLE_{name}", value)
        spec = importlib.util.spec_from_file_location("loaded", settings.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_directory_unless_told_otherwise(loaded: Any, tmp_path: Path) -> None:
    store = loaded().STORAGES["s3cache"]
    assert store["BACKEND"] == "django.core.files.storage.FileSystemStorage"
    assert store["OPTIONS"] == {"location": tmp_path / "bucket"}


def test_any_bucket(loaded: Any) -> None:
    module = loaded(
        S3_BUCKET="mine",
        S3_ENDPOINT="http://127.0.0.1:9000",
        S3_PREFIX="demo",
        S3_REGION="eu-central-1",
    )
    assert module.STORAGES["s3cache"] == {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": "mine",
            "endpoint_url": "http://127.0.0.1:9000",
            "location": "demo",
            "region_name": "eu-central-1",
        },
    }


def test_amazon_is_what_a_bucket_alone_means(loaded: Any) -> None:
    options = loaded(S3_BUCKET="mine").STORAGES["s3cache"]["OPTIONS"]
    assert options["endpoint_url"] is options["region_name"] is None
    assert options["location"] == "airports"


def test_safe_unless_told_otherwise(loaded: Any) -> None:
    module = loaded()
    assert module.DEBUG is False
    assert module.ALLOWED_HOSTS == ["127.0.0.1", "localhost", "[::1]"]


def test_other_hosts_need_a_key_of_their_own(loaded: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="set EXAMPLE_SECRET_KEY"):
        loaded(ALLOWED_HOSTS="airports.example.org")
    module = loaded(
        ALLOWED_HOSTS="airports.example.org, www.example.org",
        SECRET_KEY="a key of its own",
    )
    assert module.ALLOWED_HOSTS == ["airports.example.org", "www.example.org"]


def test_https(loaded: Any) -> None:
    assert loaded().SESSION_COOKIE_SECURE is False
    module = loaded(HTTPS="1")
    assert module.SECURE_SSL_REDIRECT is True
    assert module.SESSION_COOKIE_SECURE is module.CSRF_COOKIE_SECURE is True


def test_a_flag_is_0_or_1(loaded: Any) -> None:
    with pytest.raises(
        ImproperlyConfigured, match="EXAMPLE_DEBUG must be 0 or 1, not 'yes'"
    ):
        loaded(DEBUG="yes")


def test_every_variable_is_documented() -> None:
    project = Path(settings.__file__).parent
    variables = {
        name
        for source in project.rglob("*.py")
        for name in re.findall(r"EXAMPLE_[A-Z0-9_]+", source.read_text())
    }
    documented = set(
        re.findall(r"`(EXAMPLE_\w+)`", (project / "README.md").read_text())
    )
    assert variables == documented
