"""
Fixtures that all tests may use.

``store`` runs a test on a bucket and on a directory; ``s3_store`` and
``directory_store`` on one of them. Each is empty and nobody else's. With
S3CACHE_TEST_ENDPOINT (and S3CACHE_TEST_BUCKET, ..._ACCESS_KEY, ..._SECRET_KEY,
..._REGION) ``store`` runs on that bucket too.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports boto3: nobody's own credentials can leak in.
NOWHERE = "/nonexistent/s3cache-tests"
for variable in [name for name in os.environ if name.startswith("AWS_")]:
    if variable != "AWS_CA_BUNDLE":
        del os.environ[variable]
os.environ |= {
    "AWS_CONFIG_FILE": f"{NOWHERE}/config",
    "AWS_SHARED_CREDENTIALS_FILE": f"{NOWHERE}/credentials",
    "AWS_EC2_METADATA_DISABLED": "true",
}

from s3cache.stores import DirectoryStore, Store  # noqa: E402  (after the above)
from s3cache.stores.s3 import S3Store  # noqa: E402
from tests.missing import missing  # noqa: E402
from tests.s3_server import S3Server, SharedSessionStorage  # noqa: E402

BUCKET = "s3cache-tests"

# How long an example takes depends on what else this machine does.
settings.register_profile(
    "any-speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-speed")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 (moto over real HTTP), with the bucket in it."""
    server = S3Server()
    server.start()
    server.create_bucket(BUCKET)
    yield server
    server.stop()


@pytest.fixture
def s3_options(s3_server: S3Server) -> dict[str, Any]:
    """OPTIONS of an S3Storage on the moto server, at a location of its own."""
    return {
        "endpoint_url": s3_server.address,
        "region_name": "us-east-1",
        "access_key": "test",
        "secret_key": "test",
        "bucket_name": BUCKET,
        "location": f"test-{secrets.token_hex(8)}",
    }


@pytest.fixture
def s3_store(s3_options: dict[str, Any]) -> Iterator[Store]:
    """An empty S3Store on the moto server."""
    yield from _emptied(s3_options)


@pytest.fixture
def endpoint_store() -> Iterator[Store]:
    """An empty S3Store on the endpoint that the environment names."""
    environment = {
        name: os.environ.get(f"S3CACHE_TEST_{name.upper()}")
        for name in ("endpoint", "bucket", "access_key", "secret_key", "region")
    }
    if not environment["endpoint"]:
        pytest.skip("S3CACHE_TEST_ENDPOINT is not set")
    yield from _emptied(
        {
            "endpoint_url": environment["endpoint"],
            "region_name": environment["region"] or "us-east-1",
            "access_key": environment["access_key"],
            "secret_key": environment["secret_key"],
            "bucket_name": environment["bucket"] or BUCKET,
            "location": f"test-{secrets.token_hex(8)}",
        }
    )


@pytest.fixture
def directory_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    """An empty DirectoryStore that does not wait for the disk."""
    monkeypatch.setattr(DirectoryStore, "durable", False)
    return DirectoryStore(tmp_path / "store")


@pytest.fixture(
    params=[
        "directory_store",
        "s3_store",
        *(["endpoint_store"] if "S3CACHE_TEST_ENDPOINT" in os.environ else []),
    ]
)
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind in turn."""
    made: Store = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="session")
def require_program() -> Callable[[str, str], str]:
    """
    A function that finds a program which tests need, by name and purpose.

    Where it is missing the test is skipped, and the end of the run says what
    to do about it; with CI=true it fails, for there nothing may be missing.
    """

    def find(program: str, purpose: str) -> str:
        path = shutil.which(program)
        if path is None:
            missing(f"{program} ({purpose}): run `make system-deps`")
        return path

    return find


def _emptied(options: dict[str, Any]) -> Iterator[Store]:
    made = S3Store(SharedSessionStorage(**options))
    yield made
    while keys := [found.key for found in made.list("").keys]:
        made.delete_many(keys)
