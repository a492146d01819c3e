"""The smallest IAM policy that suffices."""

from __future__ import annotations

from typing import Any


def smallest_policy(
    bucket: str, location: str, *, partition: str = "aws"
) -> dict[str, Any]:
    """The policy document for one database.

    ``location`` is the prefix of its keys, without slashes at the ends.
    ``s3:ListBucket`` has no condition on a prefix: a GET has none, and would
    be answered with 403 where an object is missing.
    """
    arn = f"arn:{partition}:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                "Resource": f"{arn}/{location}/*" if location else f"{arn}/*",
            },
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn},
        ],
    }
