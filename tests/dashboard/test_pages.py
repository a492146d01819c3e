"""What the statistics show, and to whom."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.utils.translation import override

from s3cache import upkeep
from s3cache.metrics import keeping, show
from s3cache.metrics.book import MINUTE, QUARTER, SIX_HOURS, Reader
from s3cache.metrics.figures import DatabaseFigures, ReadFigures, Reads
from tests.dashboard import sample
from tests.dashboard.conftest import MakeClient
from tests.dashboard.pages import PAGES, ROOT, check
from tests.engine import Bucket, Host
from tests.library.models import Author


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of 200 models, 20 hosts and a month."""
    sample.install(monkeypatch)


def read(model: str, **events: int) -> ReadFigures:
    return ReadFigures(
        database="default", model=model, action="get", reads=Reads(**events)
    )


def test_every_page(viewer: Client) -> None:
    for address in PAGES:
        response = viewer.get(ROOT + address)
        assert response.status_code == 200
        page = check(response.text)
        assert len(page.all("h1")) == 1
        assert "no-store" in response["Cache-Control"]


@pytest.mark.usefixtures("large")
def test_every_page_of_a_large_installation(viewer: Client) -> None:
    for address in PAGES:
        response = viewer.get(ROOT + address)
        assert response.status_code == 200
        check(response.text)
        assert "<script>'" not in response.text


def test_the_index_of_the_admin_lists_it(viewer: Client) -> None:
    assert f'href="{ROOT}"' in viewer.get("/admin/").text


def test_without_permission_there_is_no_link(client_of: MakeClient) -> None:
    nobody = client_of("view_author", "change_author")
    assert ROOT not in nobody.get("/admin/").text


def test_no_page_asks_the_store_more_than_a_read_does(
    host: Host, viewer: Client, bucket: Bucket
) -> None:
    for address in PAGES:
        if "times" in address:
            continue  # which says so
        viewer.get(ROOT + address)
        host.pass_time(200_000.0)
        with bucket.requests() as seen:
            viewer.get(ROOT + address)
        assert seen == ["GET log"]
        with bucket.requests() as seen:
            viewer.get(ROOT + address)
        assert seen == []


def test_a_page_gathers_its_figures_once(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(keeping, "_add", counted("added", keeping._add))
    monkeypatch.setattr(Reader, "totals", counted("totals", Reader.totals))
    monkeypatch.setattr(upkeep._Next, "due", float("inf"))
    for address in PAGES:
        done.clear()
        viewer.get(ROOT + address)
        assert done.count("added") <= 1, address
        assert done.count("totals") <= 2, address  # of the host, of the others


@pytest.mark.parametrize(
    ("query", "width", "number"),
    [("", MINUTE, 61), ("?period=day", QUARTER, 97), ("?period=month", SIX_HOURS, 121)],
)
def test_a_page_reads_no_more_than_it_shows(
    viewer: Client,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    width: int,
    number: int,
) -> None:
    """Whatever there is: a day has 1,440 minutes."""
    asked: list[tuple[int, float]] = []
    real = Reader.buckets

    def buckets(
        self: Reader, scope: str, width: int, of: Any, since: float, until: float
    ) -> Any:
        asked.append((width, 1 + (until - since) / width))
        return real(self, scope, width, of, since, until)

    monkeypatch.setattr(Reader, "buckets", buckets)
    viewer.get(ROOT + query)
    assert width in {one for one, _ in asked}
    assert all(many <= number + 1 for _, many in asked), asked


def test_what_the_script_fetches_is_what_changes(viewer: Client) -> None:
    whole = viewer.get(ROOT).text
    part = viewer.get(ROOT, headers={"X-S3cache-Live": "1"}).text
    assert "<html" not in part
    for found in re.findall(r'id="(s3c-[^"]*)" data-live', whole):
        assert f'id="{found}"' in part


def test_the_worst_hit_rates_come_first(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.show_reads(
        monkeypatch,
        read("shop.fine", hit=95, miss=5),
        read("shop.rare", miss=3),
        read("shop.bad", hit=10, miss=90),
        read("shop.never", bypass=500),
    )
    text = viewer.get(f"{ROOT}models/").text
    order = re.findall(r">(shop\.\w+)</a>", text)
    assert order == ["shop.bad", "shop.fine", "shop.rare", "shop.never"]
    text = viewer.get(f"{ROOT}models/?order=reads&q=R").text
    assert re.findall(r">(shop\.\w+)</a>", text) == [
        "shop.never",
        "shop.rare",
    ]


@pytest.mark.usefixtures("large")
def test_long_tables_have_pages(viewer: Client) -> None:
    text = viewer.get(f"{ROOT}models/?q=thing1&p=2").text
    assert "Page 2 of" in text
    assert "q=thing1&amp;order=rate&amp;p=1" in text


@pytest.mark.usefixtures("large")
def test_the_figures_of_the_period(viewer: Client) -> None:
    points = sample.history("day").points[-60:]
    hits = sum(one.reads.hit for one in points)
    asked = hits + sum(one.reads.miss for one in points)
    text = viewer.get(ROOT).text
    assert f"<dd>{hits / asked:.1%}</dd>" in text
    assert f"of {asked:,} reads" in text
    assert text.count('role="img"') == 5


@pytest.mark.usefixtures("large")
def test_who_does_not_look_at_charts_reads_a_table(viewer: Client) -> None:
    assert f'href="?{"&amp;table=1"}#s3c-table"' in viewer.get(ROOT).text
    text = viewer.get(f"{ROOT}?table=1").text
    (table,) = re.findall(r'<table id="s3c-figures".*?</table>', text, re.DOTALL)
    newest = sample.history("day").points[-1].reads
    assert table.count("<tr>") == 1 + 60
    row = table.split("<tr>")[2]
    for number in (newest.hit, newest.miss, f"{newest.hit_rate:.1%}"):
        assert f">{number}</td>" in row


def test_what_is_wrong_is_said_first(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = DatabaseFigures(
        database="default", store="s3://b", is_stale=True, lag=900
    )
    monkeypatch.setattr(show, "databases", lambda *args, **kwargs: (database,))
    text = viewer.get(ROOT).text
    assert "The store of default does not answer" in text
    assert "lacks 900 entries" in text


def test_a_model_that_there_is_not(viewer: Client) -> None:
    assert viewer.get(f"{ROOT}models/shop.nothing/").status_code == 404


@pytest.mark.parametrize("query", ["times", ""])
def test_the_last_commits(
    host: Host, superuser: Client, bucket: Bucket, query: str
) -> None:
    Author.objects.create(name="Ann")
    Author.objects.bulk_create([Author(name=f"A{n}") for n in range(3)])
    superuser.get(f"{ROOT}commits/")
    with bucket.requests() as seen:
        text = superuser.get(f"{ROOT}commits/?{query}").text
    assert "library_author: 3 rows" in text
    assert "library_author: 1 row<" in text
    assert f">{host.position}</th>" in text
    assert seen == (["GET head"] + ["GET log"] * min(host.position, 16)) * bool(query)


@pytest.mark.usefixtures("large")
def test_german(viewer: Client) -> None:
    with override("de"):
        text = viewer.get(ROOT).text
    assert "Trefferquote" in text
    assert re.search(r"<dd>9\d,\d %</dd>", text)


@pytest.mark.usefixtures("large")
def test_a_long_statement_is_shown_in_short(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ", ".join(f"column_{number}" for number in range(30))
    sql = f"SELECT {columns} FROM shop WHERE id = ?"  # noqa: S608  (not executed)
    slow = [replace(one, sql=sql) for one in sample.slow_queries()]
    monkeypatch.setattr(show, "slow_queries", lambda *args, **kwargs: slow)
    text = viewer.get(f"{ROOT}queries/").text
    assert "<summary><code>SELECT … FROM shop WHERE id = ?</code></summary>" in text
    assert f"<code>{sql}</code>" in text


def test_of_one_model_nobody_knows_what_was_spent(viewer: Client) -> None:
    assert "Spent" in viewer.get(ROOT).text
    text = viewer.get(f"{ROOT}models/library.author/").text
    assert "Spent" not in text
    assert "$0.00 saved." in text
