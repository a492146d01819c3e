"""What holds for every page."""

from __future__ import annotations

import re
from collections import deque
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, override_settings

from example_project.airports.models import Airport, Country, TimeZone
from tests.html import Page, check_html

pytestmark = pytest.mark.django_db

PUBLIC = [
    "/",
    "/airports/",
    "/airports/?country=DE&q=berg&page=2",
    "/airports/?country=XX",
    "/airports/EDDF/",
    "/airports/_AYM/",
    "/countries/",
    "/countries/DE/",
    "/login/",
]
COST = re.compile(
    r"This page cost <strong[^>]*>"
    r"[\d,]+ store requests?, [\d,]+ quer(y|ies), [\d,]+ ms(, cache: \w+)?</strong>\."
)


def check_page(text: str) -> Page:
    """Assert what every page of the site must be like."""
    page = check_html(text)
    assert page.all("html")[0]["lang"] == "en-GB"
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    labelled = {label.get("for") for label in page.all("label")}
    for tag in ("input", "select"):
        for field in page.all(tag):
            assert field.get("type") == "hidden" or field.get("id") in labelled
    assert COST.search(text)
    return page


@pytest.mark.parametrize("address", PUBLIC)
def test_public_pages(client: Client, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 200
    check_page(response.text)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_pages_answer_head_and_take_no_session(
    client: Client, address: str
) -> None:
    response = client.head(address)
    assert response.status_code == 200
    assert "sessionid" not in response.cookies


def test_pages_of_an_editor(client: Client, editor: User) -> None:
    client.force_login(editor)
    for address in ("/airports/EDDF/", "/airports/EDDF/edit/"):
        text = client.get(address).text
        check_page(text)
        assert "Log out" in text
    check_page(client.post("/airports/EDDF/edit/", {"name": ""}).text)


def test_error_pages(client: Client, editor: User) -> None:
    response = client.get("/nothing/here/")
    assert response.status_code == 404
    check_page(response.text)
    client.force_login(User.objects.create_user("reader"))
    response = client.get("/airports/EDDF/edit/")
    assert response.status_code == 403
    check_page(response.text)


def test_the_page_for_failures(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("example_project.airports.views.nearest", fail)
    client.raise_request_exception = False
    response = client.get("/airports/EDDF/")
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "on purpose" not in response.text
    check_page(response.text)


def test_headers(client: Client) -> None:
    headers = client.get("/").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@override_settings(DEBUG=True)
def test_debug_pages_keep_their_inline_style(client: Client) -> None:
    assert "Content-Security-Policy" not in client.get("/nothing/").headers


def test_every_link_leads_somewhere(client: Client) -> None:
    """Follow links from the start, at most 15 of each kind of page."""
    seen: dict[str, list[str]] = {}
    waiting = deque(["/"])
    while waiting:
        address = waiting.popleft()
        kind = re.sub(r"[A-Z0-9_]{2,}", "X", urlsplit(address).path)
        if address in seen.setdefault(kind, []) or len(seen[kind]) >= 15:
            continue
        seen[kind].append(address)
        response = client.get(address)
        assert response.status_code in {200, 302}, address
        if response.status_code == 200 and not address.startswith("/static/"):
            links = [a["href"] for a in Page(response.text).all("a")]
            assert None not in links
            waiting.extend(
                urljoin(address, link.partition("#")[0])
                for link in links
                if link and not link.startswith(("#", "/admin/"))
            )
    assert set(seen) == {
        *("/", "/airports/", "/airports/X/", "/airports/X/edit/"),
        *("/countries/", "/countries/X/", "/login/", "/api/airports/"),
    }


def test_static_files_are_there(settings: Any) -> None:
    from django.contrib.staticfiles import finders

    for name in ("site.css", "theme.js", "icon.svg"):
        assert finders.find(f"airports/{name}")


# An empty catalogue


@pytest.fixture
def empty(db: None) -> None:
    Airport.objects.all().delete()
    Country.objects.all().delete()
    TimeZone.objects.all().delete()


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("address", ["/", "/airports/", "/countries/"])
def test_an_empty_catalogue_says_how_to_fill_it(client: Client, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 200
    assert "The catalogue is empty" in response.text
    assert "python manage.py load_airports" in response.text
    check_page(response.text)


@pytest.mark.usefixtures("empty")
def test_nothing_is_found_in_an_empty_catalogue(client: Client) -> None:
    assert client.get("/airports/EDDF/").status_code == 404
    assert client.get("/countries/DE/").status_code == 404
    assert "No airport is like that" in client.get("/airports/?q=x").text


# Login and the admin


def test_logging_in_and_out(client: Client, editor: User) -> None:
    response = client.post(
        "/login/?next=/airports/EDDF/",
        {"username": "editor", "password": "edit me", "next": "/airports/EDDF/"},
    )
    assert response.status_code == 302
    assert response["Location"] == "/airports/EDDF/"
    assert "Log out" in client.get("/").text
    assert client.post("/logout/")["Location"] == "/"
    assert "Log in" in client.get("/").text


def test_a_wrong_password(client: Client, editor: User) -> None:
    response = client.post("/login/", {"username": "editor", "password": "guess"})
    assert response.status_code == 200
    assert "Please enter a correct username and password" in response.text
    check_page(response.text)


def test_login_leads_nowhere_else(client: Client, editor: User) -> None:
    response = client.post(
        "/login/?next=https://example.org/",
        {"username": "editor", "password": "edit me", "next": "https://example.org/"},
    )
    assert response["Location"] == "/"


@pytest.mark.parametrize(
    "address",
    [
        "/admin/",
        "/admin/airports/airport/",
        "/admin/airports/airport/?q=frankfurt",
        "/admin/airports/airport/?timezone__region=Arctic",
        "/admin/airports/airport/EDDF/change/",
        "/admin/airports/airport/EDDF/history/",
        "/admin/airports/airport/add/",
        "/admin/airports/country/",
        "/admin/airports/country/DE/change/",
        "/admin/airports/timezone/?q=Berlin",
        "/admin/airports/timezone/Europe_2FBerlin/change/",
        "/admin/auth/user/",
        "/admin/s3cache/statistics/",
        "/admin/s3cache/statistics/models/airports.airport/",
        "/admin/s3cache/statistics/hosts/",
    ],
)
def test_admin_pages(admin_client: Client, address: str) -> None:
    response = admin_client.get(address)
    assert response.status_code == 200
    assert "Airport Atlas" in response.text
    assert COST.search(response.text)


def test_saving_in_the_admin(admin_client: Client) -> None:
    response = admin_client.post(
        "/admin/airports/country/DE/change/", {"name": "Deutschland"}
    )
    assert response.status_code == 302
    assert Country.objects.get(pk="DE").name == "Deutschland"
    assert Country.objects.filter(pk="DE").count() == 1


def test_deleting_in_the_admin(admin_client: Client) -> None:
    address = "/admin/airports/country/DE/delete/"
    assert "would require deleting the following protected" in (
        admin_client.get(address).text
    )
    address = "/admin/airports/airport/EDDF/delete/"
    assert admin_client.post(address, {"post": "yes"}).status_code == 302
    assert not Airport.objects.filter(pk="EDDF").exists()


def test_choosing_a_country_in_the_admin(admin_client: Client) -> None:
    response = admin_client.get(
        "/admin/autocomplete/",
        {
            "term": "germ",
            "app_label": "airports",
            "model_name": "airport",
            "field_name": "country",
        },
    )
    assert response.json()["results"] == [{"id": "DE", "text": "Germany"}]


# The project as a whole


def test_the_migrations_are_those_of_the_models() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_checks_find_nothing() -> None:
    call_command("check", fail_level="WARNING")
