"""The catalogue's tables as models of s3cache's own.

Apart from `benchmarks.models`, since it needs s3cache among the installed
apps, which those that are compared with it have not.
"""

from __future__ import annotations

from django.db import models

from benchmarks.models import Item
from s3cache.models import S3Model


class BucketItem(S3Model, Item):
    """As ``SmallItem``, with a key of the same kind."""

    id = models.BigAutoField(primary_key=True)

    class S3Meta:
        partitions = {"by_region": ["region"]}


class LargeBucketItem(S3Model, Item):
    """As ``LargeItem``; its rows are only counted, and have no records."""

    id = models.BigAutoField(primary_key=True)

    class S3Meta:
        records = False
