"""Django's own parts: the second visit reads nothing but the cache."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_list_or_404, get_object_or_404
from django.test import Client, RequestFactory
from django.urls import path
from django.views.generic import ArchiveIndexView, DetailView, ListView, YearArchiveView

from tests.engine import Host
from tests.library.models import Author, Book, Everything
from tests.packages.visits import events_of, is_cached
from tests.results.seen import directory

pytestmark = directory

site = admin.AdminSite(name="admin")


@admin.register(Book, site=site)
class BookAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("title", "author", "stock")
    list_filter = ("author", "stock", ("tags", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("author",)
    search_fields = ("title", "author__name")
    autocomplete_fields = ("author",)
    list_per_page = 10
    ordering = ("title",)


@admin.register(Author, site=site)
class AuthorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    search_fields = ("name",)
    ordering = ("name",)


@admin.register(Everything, site=site)
class EverythingAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    date_hierarchy = "moment"
    list_filter = ("flag", "day")
    ordering = ("text",)


urlpatterns = [path("admin/", site.urls)]


class Plain:
    def render_to_response(self, context: Any, **kwargs: Any) -> HttpResponse:
        found = context.get("object_list", context.get("object"))
        return HttpResponse(str(found))


class BookList(Plain, ListView):  # type: ignore[type-arg]
    queryset = Book.objects.order_by("title").select_related("author")
    paginate_by = 7


class BookDetail(Plain, DetailView):  # type: ignore[type-arg]
    queryset = Book.objects.prefetch_related("tags")


class Days(Plain, ArchiveIndexView):  # type: ignore[type-arg]
    model = Everything
    date_field = "moment"
    allow_future = True


class Year(Plain, YearArchiveView):  # type: ignore[type-arg]
    model = Everything
    date_field = "moment"
    allow_future = True
    make_object_list = True


def visit(view: Any, query: str = "", **kwargs: Any) -> str:
    request: HttpRequest = RequestFactory().get(f"/?{query}")
    response: HttpResponse = view.as_view()(request, **kwargs)
    return response.content.decode()


# Pagination


def test_a_paginator(books: list[Book]) -> None:
    def page(number: int = 2) -> Any:
        return Paginator(Book.objects.order_by("title"), 7).get_page(number)

    assert is_cached(lambda: list(page()))
    there = page()
    assert [book.title for book in there] == [f"Book {n:02}" for n in range(7, 14)]
    assert (there.paginator.count, there.paginator.num_pages) == (30, 5)
    assert (there.has_next(), there.has_previous()) == (True, True)
    assert events_of(lambda: list(page(3))) == {"hit", "miss"}  # the count is known
    Book.objects.filter(title="Book 07").delete()
    assert [book.title for book in page()][0] == "Book 08"
    assert page().paginator.count == 29


def test_a_paginator_of_recorded_querysets(host: Host) -> None:
    from tests.testapp.models import Product

    Product.objects.bulk_create(Product(sku=f"{n:02}") for n in range(12))

    def page() -> list[str]:
        rows = Product.objects.filter(region="EU").order_by("sku")
        return [one.sku for one in Paginator(rows, 5).get_page(3)]

    assert is_cached(page)
    assert page() == ["10", "11"]
    Product.objects.filter(sku="00").update(region="US")
    assert page() == ["11"]


def test_a_list_view(books: list[Book]) -> None:
    assert is_cached(lambda: visit(BookList, "page=last"))
    assert visit(BookList, "page=5").count("<Book:") == 2
    Book.objects.create(title="Book 99", author=books[0].author)
    assert "Book 99" in visit(BookList, "page=last")


# One object


def test_get_object_or_404(books: list[Book]) -> None:
    pk = books[0].pk
    assert is_cached(lambda: get_object_or_404(Book, pk=pk))
    assert is_cached(lambda: get_list_or_404(Book, stock__lt=3))

    def missing() -> None:
        with pytest.raises(Http404):
            get_object_or_404(Book, pk=999_999)

    assert is_cached(missing)
    books[0].delete()
    with pytest.raises(Http404):
        get_object_or_404(Book, pk=pk)


def test_a_detail_view(books: list[Book]) -> None:
    pk = books[3].pk
    assert is_cached(lambda: visit(BookDetail, pk=pk))
    Book.objects.filter(pk=pk).update(title="Renamed")
    assert visit(BookDetail, pk=pk) == "Renamed"


def test_archives_by_date(host: Host) -> None:
    for year in (2020, 2021):
        moment = dt.datetime(year, 5, 1, tzinfo=dt.UTC)
        Everything.objects.create(text=str(year), moment=moment)
    # With allow_future; else they ask for what was before this moment.
    assert is_cached(lambda: visit(Year, year=2020))
    assert is_cached(lambda: visit(Days))
    Everything.objects.create(text="new", moment=dt.datetime(2020, 2, 1, tzinfo=dt.UTC))
    assert visit(Year, year=2020).count("<Everything:") == 2


# Forms


class BookForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Book
        fields = ("title", "author", "tags", "stock")


def test_a_model_form(books: list[Book]) -> None:
    data = {"title": "x", "author": books[0].author_id, "tags": [], "stock": 1}

    def show() -> None:
        str(BookForm(instance=Book.objects.get(pk=books[0].pk)))

    def validate() -> None:
        assert BookForm(data).is_valid()

    assert is_cached(show)
    assert is_cached(validate)
    eve = Author.objects.create(name="Eve")
    assert "Eve" in str(BookForm())
    assert BookForm({**data, "author": eve.pk}).is_valid()
    Author.objects.filter(name="Eve").delete()
    assert not BookForm({**data, "author": eve.pk}).is_valid()


# The admin


@pytest.fixture
def boss(host: Host, settings: Any) -> Client:
    settings.ROOT_URLCONF = __name__
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="x"))
    return client


def seen(client: Client, url: str) -> str:
    response: Any = client.get(url)
    assert response.status_code == 200
    return str(response.content.decode())


@pytest.mark.parametrize(
    "query",
    [
        "",
        "p=3",
        "q=book+1",
        "author__id__exact={author}",
        "o=-3.1",
        "stock__exact=4",
    ],
)
def test_a_change_list(boss: Client, books: list[Book], query: str) -> None:
    url = f"/admin/library/book/?{query.format(author=books[0].author_id)}"
    assert is_cached(lambda: seen(boss, url))


@pytest.mark.parametrize(
    "query", ["", "moment__year=2021", "moment__year=2021&moment__month=5"]
)
def test_a_date_hierarchy(boss: Client, query: str) -> None:
    for month in (5, 6):
        moment = dt.datetime(2021, month, 7, tzinfo=dt.UTC)
        Everything.objects.create(text=f"in {month}", moment=moment, flag=True)
    url = f"/admin/library/everything/?{query}"
    assert is_cached(lambda: seen(boss, url))
    Everything.objects.create(
        text="new", moment=dt.datetime(2021, 5, 9, tzinfo=dt.UTC), flag=True
    )
    assert boss.get(url).context["cl"].result_count == (2 if "month" in query else 3)


def test_a_change_list_sees_what_it_changes(boss: Client, books: list[Book]) -> None:
    url = "/admin/library/book/"
    assert "Book 00" in seen(boss, url)
    pks = [book.pk for book in books[:2]]
    data = {"action": "delete_selected", "_selected_action": pks, "post": "yes"}
    assert boss.post(url, data).status_code == 302
    assert "Book 00" not in seen(boss, url)
    assert boss.get(url).context["cl"].result_count == 28


def test_a_change_form_and_autocomplete(boss: Client, books: list[Book]) -> None:
    assert is_cached(lambda: seen(boss, f"/admin/library/book/{books[0].pk}/change/"))
    url = (
        "/admin/autocomplete/?term=an&app_label=library"
        "&model_name=book&field_name=author"
    )
    assert is_cached(lambda: seen(boss, url))
