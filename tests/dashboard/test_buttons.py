"""The buttons: who may push them, what they ask, do and leave in the log."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import caches
from django.db import OperationalError
from django.test import Client

from s3cache.dashboard import actions
from s3cache.dashboard.progress import Step, Tell
from tests.dashboard.pages import ROOT, check
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author
from tests.testapp.models import Product

FORMS = {
    "warm": {"model": "testapp.product"},
    "refresh": {"model": "library.author"},
    "clear": {
        "model": "testapp.product",
        "partition": "by_region",
        "value-region": "<EU>",
    },
    "catch_up": {"database": "default"},
    "compact": {"database": "default"},
    "delete": {"cache": "default", "key": "s3cache:library.author:get:1-a:b"},
}
YES = {"confirmed": "yes"}


def logged() -> list[str]:
    return list(
        LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    )


def done(response: object) -> str:
    """What a page says in the end that came of long work."""
    return b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]


def test_there_is_a_test_for_each() -> None:
    assert FORMS.keys() == actions.ACTIONS.keys()


def test_who_may_only_look_can_change_nothing(
    viewer: Client, host: Host, bucket: Bucket
) -> None:
    before = bucket.keys()
    for name, form in FORMS.items():
        assert viewer.post(f"{ROOT}do/{name}/", form | YES).status_code == 403
    for address in ("models/library.author/", "hosts/", "keys/"):
        page = check(viewer.get(ROOT + address).text)
        posts = [f for f in page.all("form") if f.get("method") == "post"]
        assert [form["action"] for form in posts] == ["/admin/logout/"]
    assert bucket.keys() == before
    assert logged() == []


def test_nothing_happens_without_post(keeper: Client) -> None:
    for name, form in FORMS.items():
        response = keeper.get(f"{ROOT}do/{name}/", form | YES)
        assert response.status_code == 405
    assert keeper.post(f"{ROOT}do/nothing/", YES).status_code == 404
    assert logged() == []


def test_each_is_asked_first(superuser: Client, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        for name, form in FORMS.items():
            response = superuser.post(f"{ROOT}do/{name}/", form)
            assert response.status_code == 200
            page = check(response.text)
            given = {f["name"]: f["value"] for f in page.all("input") if "name" in f}
            assert form.items() <= given.items()
            assert given["confirmed"] == "yes"
    assert seen == []
    assert logged() == []


def test_refresh(host: Host, hosts: MakeHost, keeper: Client, bucket: Bucket) -> None:
    with hosts("other"):
        Author.objects.create(name="Ann")
    form = {"model": "library.author"} | YES
    with bucket.requests() as seen:
        response = keeper.post(f"{ROOT}do/refresh/", form)
    assert response["Location"] == f"{ROOT}models/library.author/"
    assert "GET log" in seen
    assert Author.objects.count() == 1
    assert logged() == ["Refresh: authors"]
    entry = LogEntry.objects.get()
    assert entry.user.username == "kim"
    assert entry.get_admin_url() == response["Location"]


def keys() -> list[str]:
    """Those of the results of products."""
    return list(caches["default"].keys("s3cache:testapp.product:*"))  # type: ignore[attr-defined]


@pytest.fixture
def products(host: Host, settings: Any) -> None:
    """Some products, and a cache of their own."""
    memory = {"BACKEND": "s3cache.caches.MemoryCache", "LOCATION": secrets.token_hex(4)}
    settings.CACHES = {"default": memory}
    Product.objects.bulk_create(
        Product(sku=f"{region}{number}", region=region)
        for region in ("EU", "US")
        for number in range(3)
    )


@pytest.mark.usefixtures("products")
def test_warm_and_clear_a_model(keeper: Client) -> None:
    form = {"model": "testapp.product"} | YES
    text = done(keeper.post(f"{ROOT}do/warm/", form))
    stored = len(keys())
    assert stored > 10
    assert f"Done: {stored} results have been stored." in text
    response = keeper.post(f"{ROOT}do/clear/", form, follow=True)
    assert "entries have been removed." in response.text
    assert keys() == []
    assert logged() == [
        "Warm: products",
        "Clear: products",
    ]


@pytest.mark.usefixtures("products")
def test_warm_and_clear_a_part(keeper: Client) -> None:
    def part(region: str) -> dict[str, str]:
        by = {"partition": "by_region", "value-region": region}
        return {"model": "testapp.product"} | by | YES

    for region in ("EU", "US"):
        done(keeper.post(f"{ROOT}do/warm/", part(region)))
    assert {key.split(":")[3] for key in keys()} == {"region=EU", "region=US"}
    keeper.post(f"{ROOT}do/clear/", part("EU"))
    assert {key.split(":")[3] for key in keys()} == {"region=US"}
    assert logged()[-1] == "Clear: products (region = EU)"


def test_all_buttons_of_a_model_and_of_its_parts(keeper: Client) -> None:
    page = check(keeper.get(f"{ROOT}models/testapp.product/").text)
    names = [
        str(one.get("formaction")).split("/")[-2]
        for one in page.all("button")
        if "formaction" in one
    ]
    partitions = len(Product._s3meta.partitions)
    assert names == [
        *("warm", "refresh", "clear", "compact"),
        *("warm", "refresh", "clear") * partitions,
    ]
    # Packs are of a whole database: that is what is asked.
    response = keeper.post(f"{ROOT}do/compact/", {"model": "testapp.product"})
    assert "Pack the rows of default" in response.text


def test_compact_shows_its_progress(host: Host, keeper: Client, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    form = {"database": "default"} | YES
    response = keeper.post(f"{ROOT}do/compact/", form)
    assert response.streaming
    text = done(response)
    check(text)
    assert re.search(r"Done: Packed to entry \d+", text)
    assert "_catalog" in " ".join(bucket.keys())
    assert logged() == ["Compact: default"]
    # What the admin's log leads to is a page.
    address = LogEntry.objects.get().get_admin_url()
    assert keeper.get(address or "").status_code == 302


def test_steps_are_told_while_it_goes_on(
    keeper: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(target: actions.Target, tell: Tell, user: object) -> str:
        tell(Step(3, 10, "of <b>"))
        return "x < y"

    slow = replace(actions.ACTIONS["compact"], run=work)
    monkeypatch.setitem(actions.ACTIONS, "compact", slow)
    text = done(keeper.post(f"{ROOT}do/compact/", {"database": "default"} | YES))
    assert "Done: x &lt; y" in text
    assert "of <b>" not in text


def test_a_failure_is_told_and_logged(
    keeper: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OperationalError("the <store> is down")

    monkeypatch.setattr(actions, "keep_now", fail)
    text = done(keeper.post(f"{ROOT}do/compact/", {"database": "default"} | YES))
    assert "Failed: OperationalError: the &lt;store&gt; is down" in text
    assert "the <store> is down" in caplog.text


@pytest.mark.parametrize(
    ("name", "form", "why"),
    [
        ("refresh", {"model": "library.nothing"}, "no model library.nothing"),
        ("refresh", {"model": "<script>"}, "no model &lt;script&gt;"),
        ("compact", {"database": "other"}, "no database other"),
        ("refresh", {"model": "library.author", "partition": "x"}, "no partition x"),
        (
            "clear",
            {
                "model": "testapp.product",
                "partition": "by_category",
                "value-category": "<x>",
            },
            "ategory: “&lt;x&gt;” is not a valid UUID.",
        ),
        ("delete", {"cache": "nothing", "key": "x"}, "no such entry"),
        ("delete", {"cache": "default", "key": "session"}, "no such entry"),
    ],
)
def test_what_makes_no_sense_is_refused(
    keeper: Client, name: str, form: dict[str, str], why: str
) -> None:
    response = keeper.post(f"{ROOT}do/{name}/", form | YES, follow=True)
    assert why in response.text
    assert logged() == []
