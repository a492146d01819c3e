"""django-import-export: rows go in, in transactions, and come out again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from import_export import fields, resources
from import_export.widgets import ForeignKeyWidget, ManyToManyWidget
from tablib import Dataset

from tests.engine import Host
from tests.library.models import Author, Book, Tag
from tests.packages.visits import is_cached
from tests.results.seen import directory

pytestmark = directory


class BookResource(resources.ModelResource):
    author = fields.Field("author", "author", ForeignKeyWidget(Author, "name"))
    tags = fields.Field("tags", "tags", ManyToManyWidget(Tag, field="name"))

    class Meta:
        model = Book
        fields = ("title", "author", "tags", "stock", "price")
        import_id_fields = ("title",)
        skip_unchanged = True
        use_transactions = True


@pytest.fixture
def library(host: Host) -> None:
    for name in ("Ann", "Bob"):
        Author.objects.create(name=name)
    for name in ("art", "bees"):
        Tag.objects.create(name=name)


def dataset(*rows: tuple[Any, ...]) -> Dataset:
    return Dataset(*rows, headers=["title", "author", "tags", "stock", "price"])


ROWS = dataset(("One", "Ann", "art,bees", 1, "1.50"), ("Two", "Bob", "", 2, "2.00"))


def position() -> int:
    number: int = connection.position  # type: ignore[attr-defined]
    return number


def test_rows_go_in_and_come_out(library: None) -> None:
    result = BookResource().import_data(ROWS, raise_errors=True)
    assert result.totals["new"] == 2
    one = Book.objects.get(title="One")
    assert (one.author.name, one.stock, one.price) == ("Ann", 1, Decimal("1.50"))
    assert {tag.name for tag in one.tags.all()} == {"art", "bees"}
    exported = BookResource().export(Book.objects.order_by("title"))
    assert [row["title"] for row in exported.dict] == ["One", "Two"]
    assert exported.dict[0]["author"] == "Ann"


def test_an_import_is_one_commit(library: None) -> None:
    before = position()
    BookResource().import_data(ROWS, raise_errors=True)
    # One more for the ids of books, and one for those of their tags.
    assert position() - before <= 3


def test_a_dry_run_and_an_error_leave_nothing(library: None) -> None:
    result = BookResource().import_data(ROWS, dry_run=True)
    assert result.totals["new"] == 2
    assert Book.objects.count() == 0
    wrong = dataset(*ROWS, ("Three", "nobody", "", 3, "3.00"))
    assert BookResource().import_data(wrong).has_errors()
    assert Book.objects.count() == 0


def test_a_second_import_changes_what_is_new(library: None) -> None:
    BookResource().import_data(ROWS, raise_errors=True)
    changed = dataset(("One", "Bob", "art", 1, "1.50"), ROWS[1])
    result = BookResource().import_data(changed, raise_errors=True)
    assert (result.totals["update"], result.totals["skip"]) == (1, 1)
    assert Book.objects.get(title="One").author.name == "Bob"


def test_the_second_export_reads_nothing_but_the_cache(library: None) -> None:
    BookResource().import_data(ROWS, raise_errors=True)

    def export() -> str:
        # Of a queryset it would read by iterator(), which is not kept.
        rows = BookResource().export(list(Book.objects.order_by("title")))
        return str(rows.csv)

    assert is_cached(export)
    assert export().splitlines()[1:] == ['One,Ann,"art,bees",1,1.50', "Two,Bob,,2,2.00"]
