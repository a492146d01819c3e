"""Who may do what: each address, each method, each kind of visitor."""

from __future__ import annotations

import itertools

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from s3cache.dashboard.actions import ACTIONS
from s3cache.dashboard.model import Statistics
from tests.dashboard.conftest import MakeClient
from tests.dashboard.pages import ROOT
from tests.engine import Bucket, Host

PAGES = {
    "changelist": "",
    "models": "models/",
    "change": "models/library.author/",
    "caches": "caches/",
    "hosts": "hosts/",
    "commits": "commits/",
    "queries": "queries/",
    "keys": "keys/?key=*",
}
BUTTONS = [f"do/{name}/" for name in ACTIONS]

#: What comes of looking at a page, of sending it something, of asking what a
#: button does, and of pushing it: with nothing said of what it is for, so
#: that whoever may push it is sent back.
EXPECTED = {
    "anonymous": (302, 302, 302, 302),
    "no staff": (302, 302, 302, 302),
    "staff": (403, 403, 403, 403),
    "changer only": (200, 405, 405, 302),
    "viewer": (200, 405, 405, 403),
    "changer": (200, 405, 405, 302),
    "superuser": (200, 405, 405, 302),
}


@pytest.fixture
def visitors(client_of: MakeClient) -> dict[str, Client]:
    """One of each kind."""
    both = "view_statistics", "change_statistics"
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    return {
        "anonymous": Client(),
        "no staff": client_of(*both, name="visitor", staff=False),
        "staff": client_of("view_author", "change_author", name="bob"),
        # Who may change something may look at it, as everywhere in the admin.
        "changer only": client_of("change_statistics", name="cyn"),
        "viewer": client_of("view_statistics", name="vic"),
        "changer": client_of(*both, name="kim"),
        "superuser": root,
    }


def test_no_address_is_forgotten() -> None:
    names = {
        (url.name or "").removeprefix("s3cache_statistics_")
        for url in admin.site._registry[Statistics].get_urls()
    }
    assert names == {*PAGES, "do"}


def test_who_may_do_what(
    host: Host, bucket: Bucket, visitors: dict[str, Client]
) -> None:
    before = other_than_entries(bucket)
    for name, client in visitors.items():
        look, send, ask, push = EXPECTED[name]
        # What a viewer may look at, these two may, by the same permission.
        pages = [""] if name in ("changer", "superuser") else PAGES.values()
        for address in pages:
            assert client.get(ROOT + address).status_code == look, (name, address)
            assert client.post(ROOT + address).status_code == send, (name, address)
        assert client.head(ROOT).status_code == look, name
        for address in BUTTONS:
            assert client.get(ROOT + address).status_code == ask, (name, address)
            assert client.post(ROOT + address).status_code == push, (name, address)
    for method, address in itertools.product(
        ("put", "patch", "delete", "options"), ("", "models/", "do/clear/")
    ):
        asked = getattr(visitors["superuser"], method)(ROOT + address)
        assert asked.status_code == 405, (method, address)
    assert not LogEntry.objects.exists()
    assert other_than_entries(bucket) == before


def other_than_entries(bucket: Bucket) -> list[str]:
    """The keys of what is not in the log: logging in is."""
    return [key for key in bucket.keys() if "_log/" not in key]  # noqa: SIM118


def test_without_a_token_nobody_sends_anything(client_of: MakeClient) -> None:
    client = client_of("view_statistics", "change_statistics", checks=True)
    for address in [*PAGES.values(), *BUTTONS]:
        response = client.post(ROOT + address, {"confirmed": "yes"})
        assert response.status_code == 403, address
    assert not LogEntry.objects.exists()
