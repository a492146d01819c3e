"""django-filter: filtered lists are served from the cache."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django_filters import (
    CharFilter,
    FilterSet,
    ModelChoiceFilter,
    OrderingFilter,
    RangeFilter,
)
from django_filters.views import FilterView

from tests.library.models import Author, Book
from tests.packages.visits import is_cached
from tests.results.seen import directory

pytestmark = directory


class Books(FilterSet):
    title = CharFilter(lookup_expr="icontains")
    author = ModelChoiceFilter(queryset=Author.objects.order_by("name"))
    stock = RangeFilter()
    order = OrderingFilter(fields=["title", "stock"])

    class Meta:
        model = Book
        fields = ("title", "author", "stock")


class BookList(FilterView):
    queryset = Book.objects.order_by("title")
    filterset_class = Books
    paginate_by = 5

    def render_to_response(self, context: Any, **kwargs: Any) -> HttpResponse:
        form = str(context["filter"].form["author"])
        titles = [book.title for book in context["page_obj"]]
        return HttpResponse(f"{context['paginator'].count} {titles} {form}")


def visit(query: str) -> str:
    request: HttpRequest = RequestFactory().get(f"/?{query}")
    response: HttpResponse = BookList.as_view()(request)
    return response.content.decode()


@pytest.mark.parametrize(
    "query",
    ["", "title=1&order=-stock", "stock_min=3&stock_max=20&page=2", "author={author}"],
)
def test_the_second_visit_reads_nothing_but_the_cache(
    books: list[Book], query: str
) -> None:
    assert is_cached(lambda: visit(query.format(author=books[0].author_id)))


def test_filters_are_right_and_see_writes(books: list[Book]) -> None:
    author = books[1].author
    for _ in range(2):
        assert visit(f"author={author.pk}&stock_min=25&order=-stock").startswith(
            "3 ['Book 29', 'Book 27', 'Book 25'] "
        )
    books[1].stock = 100
    books[1].save()
    assert visit(f"author={author.pk}&stock_min=25&order=-stock").startswith(
        "4 ['Book 01', 'Book 29', 'Book 27', 'Book 25'] "
    )


def test_choices_see_writes(books: list[Book]) -> None:
    assert "Eve" not in visit("")
    Author.objects.create(name="Eve")
    assert "Eve" in visit("")


def test_what_is_wrong_is_an_error_as_ever(books: list[Book]) -> None:
    filterset = Books({"author": "999"}, queryset=Book.objects.all())
    assert not filterset.is_valid()
    assert "author" in filterset.errors
