"""A catalogue in three tables: small, large, and for new rows."""

from __future__ import annotations

from django.db import models


class Category(models.Model):
    """What the foreign keys refer to."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    """Ten columns of the usual kinds, three indexed, one a foreign key."""

    sku = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=100)
    category = models.ForeignKey(Category, models.PROTECT, related_name="+")
    region = models.CharField(max_length=8, db_index=True)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField()
    is_active = models.BooleanField()
    created = models.DateTimeField()
    notes = models.TextField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.sku


class SmallItem(Item):
    """A table of ``Sizes.small`` rows, which stay."""


class LargeItem(Item):
    """A table of ``Sizes.large`` rows, which stay."""


class NewItem(Item):
    """A table whose rows are made and deleted by the benchmarks."""
