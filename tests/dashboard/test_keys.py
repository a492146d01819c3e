"""What is in a cache under a key, and who may know it."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache
from django.test import Client

from s3cache.caches import MemoryCache
from s3cache.dashboard import inspector
from tests.dashboard.conftest import MakeClient
from tests.dashboard.pages import ROOT, check
from tests.engine import Host
from tests.library.models import Author, Book

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7|add:7 }}{% now 'Y' %}",
    "javascript:alert(1)",
    "a&b=c#d?e/../../%2e%2e",
    "日本\u202e語",
]
OF_AUTHORS, OF_BOOKS = "s3cache:library.author:*", "s3cache:library.book:*"


@pytest.fixture(autouse=True, params=["s3cache.caches.MemoryCache"])
def backend(request: pytest.FixtureRequest, host: Host, settings: Any) -> str:
    """The cache is a new one, with results of authors and books in it."""
    name = str(request.param)
    settings.CACHES = {
        "default": {"BACKEND": name, "LOCATION": secrets.token_hex(4)},
        "other": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    Author.objects.bulk_create([Author(name=f"<i>{n}") for n in range(30)])
    list(Author.objects.order_by("name"))
    list(Book.objects.order_by("title"))
    return name


def shown(client: Client, key: str, alias: str = "default") -> str:
    query = urlencode({"cache": alias, "key": key})
    response = client.get(f"{ROOT}keys/?{query}")
    assert response.status_code == 200
    check(response.text)
    return response.text


def listed(client: Client, pattern: str) -> list[str]:
    text = shown(client, pattern)
    found = re.findall(r'href="[^"]*keys/\?[^"]*"><code>(.*?)</code>', text)
    return [str(key) for key in found]


@pytest.mark.parametrize(
    "backend",
    ["s3cache.caches.MemoryCache", "django.core.cache.backends.locmem.LocMemCache"],
    indirect=True,
)
def test_a_result_is_shown_as_its_rows(superuser: Client) -> None:
    (key,) = listed(superuser, OF_AUTHORS)
    text = shown(superuser, key)
    assert '<th scope="col">name</th>' in text
    assert "&lt;i&gt;0" in text
    assert "<i>0" not in text
    assert "10 more rows" in text


@pytest.mark.parametrize(
    "backend",
    ["s3cache.caches.MemoryCache", "django.core.cache.backends.locmem.LocMemCache"],
    indirect=True,
)
def test_a_pattern_with_many_stars_is_found_at_once(superuser: Client) -> None:
    """Backtracking would take longer than the world is old."""
    cache.set("a" * 240, 1)
    assert listed(superuser, "*a" * 40 + "*b") == []
    assert listed(superuser, "*a" * 40) == ["a" * 240]


def test_a_large_value_is_cut_and_not_laid_out(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would take seconds for each MB."""
    monkeypatch.setattr(inspector, "pformat", lambda *args, **kwargs: "laid out")
    cache.set("mine", list(range(50_000)), 100)
    text = shown(superuser, "mine")
    assert len(text) < 20_000
    assert "[0, 1, 2" in text
    assert "laid out" not in text


def test_age_and_time_and_size(superuser: Client) -> None:
    cache.set("mine", b"x" * 2048, 100)
    text = shown(superuser, "mine")
    assert re.search(r"<dt>Age</dt><dd>\d s</dd>", text)
    assert re.search(r"<dt>Kept for</dt><dd>(99|100) s</dd>", text)
    assert "<dt>Size</dt><dd>2.0 KB</dd>" in text
    cache.set("mine", {"at": dt.date(2026, 1, 2)}, None)
    text = shown(superuser, "mine")
    assert "<dt>Kept for</dt><dd>no limit</dd>" in text
    assert "datetime.date(2026, 1, 2)" in text


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_hostile_keys_and_values_are_text(superuser: Client) -> None:
    for key in HOSTILE:
        cache.set(key, {key: f"</pre></dd>{key}"})
        text = shown(superuser, key)
        assert "<dt>Kind</dt><dd>dict</dd>" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert listed(superuser, "*")
        form = {"cache": "default", "key": key}
        asked = superuser.post(f"{ROOT}do/delete/", form)
        check(asked.text)
        superuser.post(f"{ROOT}do/delete/", form | {"confirmed": "yes"})
        assert cache.get(key) is None
        check(superuser.get("/admin/").text)


def test_who_may_view_a_model_sees_its_keys_and_no_values(
    client_of: MakeClient,
) -> None:
    cache.set("sessions:secret-of-root", "secret value")
    client = client_of("view_statistics", "change_statistics", "view_author")
    (key,) = listed(client, "*")
    assert key.startswith("s3cache:library.author:")
    text = shown(client, key)
    assert "Values are shown to superusers alone." in text
    assert "&lt;i&gt;0" not in text
    assert listed(client, OF_BOOKS) == []
    for hidden in ("sessions:secret-of-root", "s3cache:x.y:list:1-a:b"):
        assert "There is no such entry." in shown(client, hidden)
        form = {"cache": "default", "key": hidden, "confirmed": "yes"}
        client.post(f"{ROOT}do/delete/", form)
    assert cache.get("sessions:secret-of-root") == "secret value"


def test_the_admins_log_has_no_key_that_is_a_secret(superuser: Client) -> None:
    cache.set("sessions:secret-of-root", "secret value")
    (of_author,) = listed(superuser, OF_AUTHORS)
    for key in ("sessions:secret-of-root", of_author):
        form = {"cache": "default", "key": key, "confirmed": "yes"}
        superuser.post(f"{ROOT}do/delete/", form)
    hidden, plain = LogEntry.objects.order_by("pk")
    for text in (hidden.change_message, hidden.object_id, hidden.object_repr):
        assert "secret-of-root" not in str(text)
    digest = hashlib.sha256(b"sessions:secret-of-root").hexdigest()
    assert digest in hidden.change_message
    assert of_author in plain.change_message


def test_who_may_only_look_cannot_delete(client_of: MakeClient) -> None:
    client = client_of("view_statistics", "view_author")
    (key,) = listed(client, OF_AUTHORS)
    assert "Delete" not in shown(client, key)
    form = {"cache": "default", "key": key, "confirmed": "yes"}
    assert client.post(f"{ROOT}do/delete/", form).status_code == 403
    assert cache.get(key) is not None


def test_looking_changes_no_statistics(superuser: Client) -> None:
    (key,) = listed(superuser, OF_AUTHORS)
    before = cache.stats()  # type: ignore[attr-defined]
    shown(superuser, key)
    assert cache.stats()["misses"] == before["misses"]  # type: ignore[attr-defined]


def test_caches_that_list_nothing_or_are_not_there(superuser: Client) -> None:
    assert "cannot list its keys" in shown(superuser, "*", "other")
    assert "There is no such entry" in shown(superuser, "x", "other")
    assert "There is no such cache" in shown(superuser, "x", "nothing")


def test_a_cache_that_fails(
    superuser: Client, client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ConnectionError("no <answer> of server-7")

    monkeypatch.setattr(MemoryCache, "look", fail)
    assert "ConnectionError: no &lt;answer&gt;" in shown(superuser, "x")
    viewer = client_of("view_statistics", "view_author")
    text = shown(viewer, "s3cache:library.author:list:1-a:b")
    assert "ConnectionError" in text
    assert "server-7" not in text
