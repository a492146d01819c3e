"""Ordinary models, with what Django and SQLite know about tables.

Nothing here is s3cache's own: the engine has to serve any project.
"""

from __future__ import annotations

import uuid

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F, Q


class Author(models.Model):
    """A row that others refer to, with a unique name."""

    name = models.CharField(max_length=300, unique=True)
    born = models.IntegerField(default=1900)

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """A key that people choose: text, case-sensitive, no rowid alias."""

    name = models.CharField(max_length=400, primary_key=True)
    note = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    """Foreign keys, many to many, a check and a generated column."""

    title = models.CharField(max_length=100)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    translator = models.ForeignKey(
        Author, models.SET_NULL, null=True, blank=True, related_name="translations"
    )
    tags = models.ManyToManyField(Tag, blank=True, related_name="books")
    stock = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(stock__gte=0), name="stock_not_negative"
            ),
        )

    def __str__(self) -> str:
        return self.title


class Place(models.Model):
    """Two unique constraints that rows may want to swap."""

    shelf = models.CharField(max_length=20)
    number = models.IntegerField()
    label = models.CharField(max_length=20, unique=True)

    class Meta:
        constraints = (
            models.UniqueConstraint("shelf", "number", name="one_at_each_place"),
        )

    def __str__(self) -> str:
        return self.label


class Member(models.Model):
    """A tree: a row may refer to another one of its table."""

    name = models.CharField(max_length=40)
    invited_by = models.ForeignKey("self", models.PROTECT, null=True)

    def __str__(self) -> str:
        return self.name


class Patron(Member):
    """Two tables for one object."""

    gift = models.IntegerField(default=0)


class Loan(models.Model):
    """A key of two columns, without an integer primary key."""

    pk = models.CompositePrimaryKey("copy", "day")
    copy = models.IntegerField()
    day = models.DateField()
    reader = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return f"{self.copy} on {self.day}"


class Everything(models.Model):
    """A column of every kind."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    text = models.TextField(default="")
    blob = models.BinaryField(null=True)
    whole = models.BigIntegerField(null=True)
    real = models.FloatField(null=True)
    money = models.DecimalField(max_digits=15, decimal_places=3, null=True)
    flag = models.BooleanField(null=True)
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    time = models.TimeField(null=True)
    span = models.DurationField(null=True)
    uid = models.UUIDField(null=True)
    data = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    address = models.GenericIPAddressField(null=True)
    doubled = models.GeneratedField(
        expression=F("whole") * 2,
        output_field=models.BigIntegerField(),
        db_persist=True,
    )

    def __str__(self) -> str:
        return str(self.id)
