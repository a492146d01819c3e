"""Answers that become exceptions say what to do."""

from __future__ import annotations

import pytest

from s3cache.exceptions import StoreError, StoreRefused, StoreUnavailable
from s3cache.stores import Answer, DirectoryStore


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Answer(0), StoreUnavailable, "no answer"),
        (Answer(0, message="ReadTimeoutError"), StoreUnavailable, "ReadTimeoutError"),
        (Answer(408), StoreUnavailable, "status 408"),
        (Answer(409), StoreUnavailable, "status 409"),
        (Answer(503, message="SlowDown"), StoreUnavailable, "SlowDown"),
        (Answer(400, message="ExpiredToken"), StoreRefused, "ExpiredToken"),
        (Answer(501, message="no links"), StoreRefused, "no links"),
        (
            Answer(410, message="NoSuchBucket"),
            StoreRefused,
            "NoSuchBucket. Create the bucket, or correct its name or the endpoint",
        ),
        (Answer(413, message="full"), StoreRefused, "full. Make room on the disk"),
    ],
)
def test_errors(
    directory_store: DirectoryStore, answer: Answer, kind: type[StoreError], text: str
) -> None:
    error = directory_store.error(answer, "write an entry")
    assert type(error) is kind
    assert str(error) == f"{directory_store.name}: could not write an entry: {text}"
