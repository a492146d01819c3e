"""Django REST framework: its views' reads are served from the cache."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import include, path
from django_filters import rest_framework as filters
from rest_framework import routers, serializers, viewsets
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.pagination import CursorPagination, PageNumberPagination
from rest_framework.permissions import DjangoModelPermissions
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIRequestFactory, force_authenticate

from s3cache.conditional import depends_on
from tests.engine import Host
from tests.library.models import Author, Book
from tests.packages.visits import is_cached, reads_of
from tests.results.seen import directory

pytestmark = directory


class AuthorSerializer(serializers.ModelSerializer[Author]):
    class Meta:
        model = Author
        fields = ("id", "name", "born")


class BookSerializer(serializers.ModelSerializer[Book]):
    author_name = serializers.CharField(source="author.name", read_only=True)

    class Meta:
        model = Book
        fields = ("id", "title", "author", "author_name", "stock", "tags")


class Pages(PageNumberPagination):
    page_size = 10
    page_size_query_param = "size"


class Cursors(CursorPagination):
    page_size = 10
    ordering = "title"


class BookFilter(filters.FilterSet):
    least = filters.NumberFilter(field_name="stock", lookup_expr="gte")

    class Meta:
        model = Book
        fields = ("author", "author__name", "least")


class BookViews(viewsets.ModelViewSet[Book]):
    queryset = Book.objects.select_related("author").prefetch_related("tags")
    serializer_class = BookSerializer
    pagination_class = Pages
    renderer_classes = (JSONRenderer,)
    filter_backends = (filters.DjangoFilterBackend, SearchFilter, OrderingFilter)
    filterset_class = BookFilter
    search_fields = ("title", "author__name")
    ordering_fields = ("title", "stock")
    ordering = ("title",)


class AuthorViews(viewsets.ReadOnlyModelViewSet[Author]):
    queryset = Author.objects.order_by("name")
    serializer_class = AuthorSerializer
    renderer_classes = (JSONRenderer,)


class CursorViews(BookViews):
    pagination_class = Cursors
    filter_backends: Any = ()


router = routers.SimpleRouter()
router.register("books", BookViews)
router.register("cursors", CursorViews, basename="cursor")
urlpatterns = [
    path("", include(router.urls)),
    path("tagged/", depends_on(Author)(AuthorViews.as_view({"get": "list"}))),
]


@pytest.fixture(autouse=True)
def urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": {"anon": None}}


def get(url: str) -> Any:
    response = Client().get(url)
    assert response.status_code == 200, response.content
    return response.json()


@pytest.mark.parametrize(
    "url",
    [
        "/books/",
        "/books/?page=2&size=5",
        "/books/?author__name=Ann&least=10",
        "/books/?search=book+1&ordering=-stock",
        "/cursors/",
        "/books/{pk}/",
    ],
)
def test_the_second_visit_reads_nothing_but_the_cache(
    books: list[Book], url: str
) -> None:
    url = url.format(pk=books[0].pk)
    assert is_cached(lambda: get(url))


def test_pages_are_right(books: list[Book]) -> None:
    for _ in range(2):
        page = get("/books/?page=2&size=7&ordering=-stock")
        assert page["count"] == 30
        assert [one["stock"] for one in page["results"]] == [*range(22, 15, -1)]
        found = get("/books/?author__name=Ann&least=20")
        assert {one["author_name"] for one in found["results"]} == {"Ann"}
        assert found["count"] == 5
    first = get("/cursors/")
    second = get(first["next"])
    assert second["results"][0]["title"] == "Book 10"


def test_a_write_by_the_api_is_seen_by_its_next_read(books: list[Book]) -> None:
    client = Client()
    before = get("/books/")["count"]
    made = client.post(
        "/books/",
        {"title": "New", "author": books[0].author_id, "stock": 1, "tags": []},
        content_type="application/json",
    )
    assert made.status_code == 201, made.content
    assert get("/books/")["count"] == before + 1
    url = f"/books/{made.json()['id']}/"
    assert get(url)["stock"] == 1
    changed = client.patch(url, {"stock": 2}, content_type="application/json")
    assert changed.status_code == 200
    assert get(url)["stock"] == 2
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    assert get("/books/")["count"] == before


def test_validators_ask_the_database(books: list[Book]) -> None:
    taken = AuthorSerializer(data={"name": "Ann", "born": 1})
    assert not taken.is_valid()
    assert taken.errors["name"][0].code == "unique"
    orphan = BookSerializer(data={"title": "x", "author": 999, "tags": []})
    assert not orphan.is_valid()
    assert orphan.errors["author"][0].code == "does_not_exist"


def test_an_etag_saves_the_view(books: list[Book]) -> None:
    client = Client()
    response = client.get("/tagged/")
    again = {"If-None-Match": response["ETag"]}
    assert client.get("/tagged/", headers=again).status_code == 304
    assert [
        one.label for one in reads_of(lambda: client.get("/tagged/", headers=again))
    ] == ["response"]
    Author.objects.create(name="Eve")
    assert len(client.get("/tagged/", headers=again).json()) == 3


def test_permissions(host: Host) -> None:
    class Guarded(BookViews):
        permission_classes = (DjangoModelPermissions,)

    view = Guarded.as_view({"post": "create"})
    request = APIRequestFactory().post("/", {"title": "x"}, format="json")
    user = User.objects.create(username="ann")
    force_authenticate(request, user=user)
    assert view(request).status_code == 403
    User.objects.filter(pk=user.pk).update(is_superuser=True)
    request = APIRequestFactory().post("/", {"title": "x"}, format="json")
    force_authenticate(request, user=User.objects.get())
    assert view(request).status_code == 400  # may, but lacks an author
