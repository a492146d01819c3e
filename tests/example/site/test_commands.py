"""``load_airports`` and ``demo``."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import Any

import airportsdata
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from example_project.airports import loading
from example_project.airports.models import Airport, Country, TimeZone

from .conftest import Record

pytestmark = pytest.mark.django_db


def run(*command: str, **options: Any) -> str:
    out = StringIO()
    call_command(*command, stdout=out, **options)
    return out.getvalue()


def writes(queries: CaptureQueriesContext) -> list[str]:
    return [
        query["sql"]
        for query in queries
        if query["sql"].startswith(("INSERT", "UPDATE", "DELETE", "REPLACE"))
    ]


def facts(airports: Iterable[Any]) -> dict[str, Record]:
    """What they are published with, but for the local codes."""
    return {
        airport.code: {
            "icao": airport.code,
            "iata": airport.iata,
            "name": airport.name,
            "city": airport.city,
            "subd": airport.subdivision,
            "country": airport.country_id,
            "elevation": airport.elevation,
            "lat": airport.latitude,
            "lon": airport.longitude,
            "tz": airport.timezone_id,
        }
        for airport in airports
    }


def without_local_codes(records: dict[str, Record]) -> dict[str, Record]:
    return {
        code: {name: fact for name, fact in record.items() if name != "lid"}
        for code, record in records.items()
    }


def test_every_fact_is_stored(published: dict[str, Record]) -> None:
    assert Country.objects.count() == len({r["country"] for r in published.values()})
    assert TimeZone.objects.count() == len({r["tz"] for r in published.values()})
    assert facts(Airport.objects.all()) == without_local_codes(published)


def test_every_fact_of_all_airports_is_taken_over(
    everything: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airportsdata, "load", lambda code_type: everything)
    countries, zones, airports = loading.published()
    assert {one.code for one in countries} == {
        r["country"] for r in everything.values()
    }
    assert {one.name for one in zones} == {r["tz"] for r in everything.values()}
    assert facts(airports) == without_local_codes(everything)


def test_every_stored_airport_is_valid() -> None:
    for airport in Airport.objects.filter(country__in=["IS", "FJ", "AQ", "KR"]):
        airport.full_clean()


def test_loading_again_writes_nothing() -> None:
    with CaptureQueriesContext(connection) as queries:
        text = run("load_airports")
    assert "0 rows added, 0 changed" in text
    assert writes(queries) == []


def test_what_is_missing_is_added_and_edits_are_kept() -> None:
    Airport.objects.filter(pk__in=["EDDF", "KJFK"]).delete()
    Airport.objects.filter(pk="EDDM").update(name="Franz Josef Strauß")
    assert "2 rows added, 0 changed" in run("load_airports")
    assert Airport.objects.get(pk="EDDF").iata == "FRA"
    assert Airport.objects.get(pk="EDDM").name == "Franz Josef Strauß"


def test_update_puts_the_published_facts_back() -> None:
    Airport.objects.filter(pk="EDDM").update(name="Munich", iata="", search_text="")
    # Somebody else took the code in the meantime.
    Airport.objects.filter(pk="EDDF").update(iata="MUC")
    assert "0 rows added, 2 changed" in run("load_airports", update=True)
    munich = Airport.objects.get(pk="EDDM")
    assert munich.iata == "MUC"
    assert munich.search_text.startswith("eddm muc munich")
    assert Airport.objects.get(pk="EDDF").iata == "FRA"


def test_a_clash_is_explained() -> None:
    Airport.objects.filter(pk="EDDF").delete()
    Airport.objects.filter(pk="EDFE").update(iata="FRA")
    with pytest.raises(CommandError, match="clashes with the published facts"):
        run("load_airports")


def test_verbosity_0_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Airport.objects.filter(pk="EDDF").delete()
    assert run("load_airports", verbosity=0) == ""
    assert capfd.readouterr() == ("", "")


def test_few_commits(
    published: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BATCH", 1_000)
    Airport.objects.all().delete()
    sizes = []
    create = Airport.objects.bulk_create

    def counted(rows: Any, **options: Any) -> Any:
        sizes.append(len(rows))
        return create(rows, **options)

    monkeypatch.setattr(Airport.objects, "bulk_create", counted)
    run("load_airports", verbosity=0)
    assert len(sizes) == -(-len(published) // 1_000)
    assert sum(sizes) == Airport.objects.count()


def test_names_of_countries() -> None:
    names = loading.country_names()
    assert [
        names[code] for code in ("IR", "KR", "KP", "CD", "CG", "BQ", "TZ", "XK")
    ] == [
        "Iran",
        "Republic of Korea",
        "Democratic People's Republic of Korea",
        "Democratic Republic of the Congo",
        "Congo",
        "Bonaire, Sint Eustatius and Saba",
        "Tanzania",
        "Kosovo",
    ]
    assert len(set(names.values())) == len(names)


def login_of(text: str) -> tuple[str, str]:
    (line,) = (line for line in text.splitlines() if "Login" in line)
    name, password = line.split("Login")[1].split(" / ")
    return name.strip(), password.strip()


def test_the_demo_prints_a_login_that_works(client: Client) -> None:
    text = run("demo", serve=False)
    assert "http://127.0.0.1:8000/admin/" in text
    name, password = login_of(text)
    assert client.login(username=name, password=password)
    assert client.get("/admin/").status_code == 200


def test_the_demo_can_be_started_again(client: Client) -> None:
    first, second = (
        login_of(run("demo", serve=False)),
        login_of(run("demo", serve=False)),
    )
    assert first != second
    assert not client.login(username=first[0], password=first[1])
    assert client.login(username=second[0], password=second[1])


def test_the_password_can_be_chosen(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_ADMIN_PASSWORD", "chosen by hand")
    assert login_of(run("demo", serve=False)) == ("admin", "chosen by hand")
    with CaptureQueriesContext(connection) as queries:
        run("demo", serve=False)
    assert writes(queries) == []
    assert client.login(username="admin", password="chosen by hand")


def test_the_demo_serves_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    from example_project.airports.management.commands import demo

    def call(name: str, *args: Any, **options: Any) -> None:
        calls.append((name, args))

    monkeypatch.setattr(demo, "call_command", call)
    text = run("demo", "127.0.0.1:8123")
    assert [name for name, _ in calls] == ["migrate", "load_airports", "runserver"]
    assert calls[-1] == ("runserver", ("127.0.0.1:8123",))
    assert "http://127.0.0.1:8123/" in text
