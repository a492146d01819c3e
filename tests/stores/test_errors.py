"""Answers that become exceptions say what to do."""

from __future__ import annotations

import pytest

from s3cache.exceptions import StoreError, StoreRefused, StoreUnavailable
from s3cache.stores import Answer
from s3cache.stores.failures import failure


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Answer(0), StoreUnavailable, "no answer."),
        (
            Answer(0, message="ReadTimeoutError"),
            StoreUnavailable,
            "no answer (ReadTimeoutError).",
        ),
        (Answer(408), StoreUnavailable, "HTTP 408."),
        (Answer(409), StoreUnavailable, "HTTP 409."),
        (Answer(429), StoreUnavailable, "HTTP 429."),
        (
            Answer(503, message="SlowDown"),
            StoreUnavailable,
            "HTTP 503 (SlowDown).",
        ),
        (
            Answer(400, message="ExpiredToken"),
            StoreRefused,
            "HTTP 400 (ExpiredToken).",
        ),
        (Answer(501, message="no links"), StoreRefused, "HTTP 501 (no links)."),
        (
            Answer(403, message="AccessDenied"),
            StoreRefused,
            "HTTP 403 (AccessDenied). The credentials need s3:GetObject, s3:PutObject "
            "and s3:DeleteObject on the location and s3:ListBucket on the bucket "
            "(without it a missing object looks like a forbidden one), and this "
            "host's clock must be right.",
        ),
        (
            Answer(410, message="NoSuchBucket"),
            StoreRefused,
            "HTTP 410 (NoSuchBucket). Create the bucket, or correct its name or the "
            "endpoint.",
        ),
        (
            Answer(413, message="full"),
            StoreRefused,
            "HTTP 413 (full). Make room on the disk.",
        ),
    ],
)
def test_errors(answer: Answer, kind: type[StoreError], text: str) -> None:
    error = failure(answer, "write an entry", store="s3://bucket/place")
    assert type(error) is kind
    assert str(error) == f"s3://bucket/place: could not write an entry: {text}"
