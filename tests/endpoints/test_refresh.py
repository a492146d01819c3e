"""Having a host see now what others have committed."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import include, path

from s3cache.exceptions import StoreUnavailable
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author

pytestmark = pytest.mark.urls(__name__)

urlpatterns = [path("s3cache/", include("s3cache.endpoints.urls"))]


def client(*permissions: str) -> Client:
    """A client of a user with permissions."""
    user = User.objects.create_user("ann")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    found = Client()
    found.force_login(user)
    return found


@pytest.fixture
def permissions(host: Host) -> None:
    """Django makes them after ``migrate``."""
    create_permissions(apps.get_app_config("library"), verbosity=0)


@pytest.mark.usefixtures("permissions")
def test_it_answers_with_model_and_count(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    visitor = client("view_author")
    with hosts("other") as other:
        Author.objects.create(name="Ann")
    assert Author.objects.count() == 0
    response = visitor.post("/s3cache/refresh/library.Author/")
    assert response.json() == {
        "model": "library.Author",
        "count": 1,
        "position": other.position,
    }
    assert Author.objects.count() == 1
    assert "no-store" in response["Cache-Control"]


@pytest.mark.usefixtures("permissions")
def test_what_it_costs(host: Host, bucket: Bucket) -> None:
    visitor = client("view_author")
    with bucket.requests() as seen:
        visitor.post("/s3cache/refresh/library.author/")
    assert seen == ["GET log"]


@pytest.mark.usefixtures("permissions")
@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("library.Book", 403),
        ("library.Nothing", 404),
        ("nothing.Author", 404),
        ("library", 404),
        ("a.b.c", 404),
    ],
)
def test_who_and_what_is_refused(host: Host, label: str, status: int) -> None:
    response = client("view_author").post(f"/s3cache/refresh/{label}/")
    assert response.status_code == status
    assert response.json()["error"]


def test_nobody_is_told_which_models_there_are(host: Host) -> None:
    for label in ("library.Author", "library.Nothing"):
        assert Client().post(f"/s3cache/refresh/{label}/").status_code == 403


def test_it_is_posted(host: Host) -> None:
    assert Client().get("/s3cache/refresh/library.Author/").status_code == 405


@pytest.mark.usefixtures("permissions")
def test_the_store_is_down(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = client("view_author")

    def refuse(self: object) -> None:
        raise StoreUnavailable("bucket-7 does not answer")

    monkeypatch.setattr(type(host.connection.replica), "catch_up", refuse)
    response = visitor.post("/s3cache/refresh/library.Author/")
    assert response.status_code == 503
    assert response.json() == {"error": "StoreUnavailable"}
