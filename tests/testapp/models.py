"""Models for the tests: each a way in which a project may use S3Model."""

from __future__ import annotations

import uuid
from typing import ClassVar, Self

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from s3cache.managers import S3Manager, S3QuerySet
from s3cache.models import S3Model


class Category(S3Model):
    name = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.name


class Product(S3Model):
    sku = models.CharField(max_length=40, unique=True)
    region = models.CharField(max_length=8, default="EU")
    kind = models.CharField(max_length=8, null=True)  # noqa: DJ001 (a partition of None)
    price = models.DecimalField(max_digits=9, decimal_places=2, default=0)
    stock = models.IntegerField(default=0)
    data = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    blob = models.BinaryField(default=b"")
    file = models.FileField(blank=True)
    changed = models.DateTimeField(auto_now=True)
    category = models.ForeignKey(
        Category, models.CASCADE, null=True, related_name="products"
    )
    related = models.ManyToManyField("self")

    class S3Meta:
        partitions: ClassVar = {
            "by_region": ["region"],
            "by_region_and_kind": ["region", "kind"],
            "by_category": ["category"],
        }
        ttl = 60

    def __str__(self) -> str:
        return self.sku


class Named(S3Model):
    """An abstract class between S3Model and others."""

    name = models.CharField(max_length=40, default="")

    class Meta:
        abstract = True

    class S3Meta:
        ttl = 10
        records = False

    def __str__(self) -> str:
        return self.name


class Place(Named):
    pass


class Shop(Place):
    """A child of multi-table inheritance."""

    rooms = models.IntegerField(default=1)


class PlaceProxy(Place):
    class Meta:
        proxy = True


class Coded(Named):
    """A primary key declared below an abstract class."""

    code = models.CharField(max_length=20, primary_key=True)

    class S3Meta(Named.S3Meta):
        ttl = 20


class Counted(S3Model):
    """A primary key with the name and the kind that Django gives it."""

    id = models.BigAutoField(primary_key=True)


class WithKey(models.Model):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)

    class Meta:
        abstract = True


class Keyed(WithKey, S3Model):  # noqa: DJ008
    """A primary key of another abstract base."""


class Grid(S3Model):
    pk = models.CompositePrimaryKey("x", "y")
    x = models.IntegerField()
    y = models.IntegerField()
    value = models.IntegerField(default=0)


class GearQuerySet(S3QuerySet["Gear"]):
    def heavy(self) -> Self:
        return self.filter(weight__gte=100)


_GearManager = S3Manager.from_queryset(GearQuerySet)


class GearManager(_GearManager["Gear"]):
    def named(self, name: str) -> S3QuerySet[Gear]:
        return self.fresh().filter(name=name)


class Gear(S3Model):
    name = models.CharField(max_length=40)
    weight = models.IntegerField(default=0)

    objects: ClassVar[GearManager] = GearManager()

    def __str__(self) -> str:
        return self.name


class Measured(S3Model):
    """Values that Django converts, and that nobody can change."""

    money = models.DecimalField(max_digits=9, decimal_places=2)
    real = models.FloatField(null=True)
    flag = models.BooleanField(default=False)
    day = models.DateField()
    moment = models.DateTimeField()
    time = models.TimeField()
    span = models.DurationField()
    uid = models.UUIDField(unique=True)
    address = models.GenericIPAddressField(null=True)

    def __str__(self) -> str:
        return str(self.money)


class Note(models.Model):
    """An ordinary model, which S3Models relate to."""

    text = models.CharField(max_length=40)
    products = models.ManyToManyField(Product)

    def __str__(self) -> str:
        return self.text
