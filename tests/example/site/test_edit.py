"""Changing an airport."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.forms import model_to_dict
from django.test import Client

from example_project.airports.forms import AirportForm
from example_project.airports.models import Airport

pytestmark = pytest.mark.django_db

ADDRESS = "/airports/EDDF/edit/"


@pytest.fixture
def typing(client: Client, editor: User) -> Any:
    """Open the form, type these values into it and send it."""
    client.force_login(editor)

    def send(**typed: Any) -> Any:
        form = client.get(ADDRESS).context["form"]
        values = {name: form[name].value() for name in form.fields}
        return client.post(ADDRESS, {**values, **typed})

    return send


def stored() -> dict[str, Any]:
    return {
        **model_to_dict(Airport.objects.get(pk="EDDF")),
        **Airport.objects.values("changed_at", "search_text").get(pk="EDDF"),
    }


def test_the_form_shows_what_is_stored(client: Client, editor: User) -> None:
    client.force_login(editor)
    text = client.get(ADDRESS).text
    assert 'value="Frankfurt am Main International Airport"' in text
    assert '<option value="DE" selected>Germany</option>' in text
    assert '<option value="Europe/Berlin" selected>Europe/Berlin</option>' in text


def test_saving(client: Client, typing: Any) -> None:
    before = stored()
    response = typing(name="Rhein-Main Flughafen", city="Frankfurt/Main", iata="qqq")
    assert response.status_code == 302, response.context["form"].errors
    assert response["Location"] == "/airports/EDDF/"
    after = stored()
    assert after["changed_at"] > before["changed_at"]
    assert {k: v for k, v in after.items() if v != before[k]} == {
        "name": "Rhein-Main Flughafen",
        "city": "Frankfurt/Main",
        "iata": "QQQ",
        "changed_at": after["changed_at"],
        "search_text": "eddf qqq rhein-main flughafen frankfurt/main hesse",
    }
    page = client.get(response["Location"]).text
    assert "Rhein-Main Flughafen (QQQ) has been saved" in page
    assert "has been saved" not in client.get(response["Location"]).text


def test_a_changed_airport_is_found_by_its_new_name(
    client: Client, typing: Any
) -> None:
    typing(name="Zzyzx Íntergalactic")
    response = client.get("/airports/", {"q": "zzyzx intergalactic"})
    assert [airport.code for airport in response.context["page"]] == ["EDDF"]


def test_moving_to_another_country_moves_between_partitions(typing: Any) -> None:
    typing(country="FR")
    by_country = Airport.objects.partition
    assert by_country("by_country", country="FR").filter(pk="EDDF").exists()
    assert not by_country("by_country", country="DE").filter(pk="EDDF").exists()


@pytest.mark.parametrize(
    ("typed", "field", "message"),
    [
        ({"name": ""}, "name", "This field is required."),
        ({"name": "x" * 101}, "name", "Ensure this value has at most 100 characters"),
        ({"iata": "JFK"}, "iata", "Another airport has this IATA code."),
        ({"iata": "F1"}, "iata", "Three capital letters."),
        ({"iata": "FRAX"}, "iata", "Ensure this value has at most 3 characters"),
        ({"country": "XX"}, "country", "Select a valid choice."),
        ({"timezone": ""}, "timezone", "This field is required."),
        ({"latitude": "90.1"}, "latitude", "less than or equal to 90."),
        ({"latitude": "north"}, "latitude", "Enter a number."),
        ({"longitude": "-180.5"}, "longitude", "greater than or equal to -180."),
        ({"elevation": "nan"}, "elevation", "Enter a number."),
        ({"elevation": "99999"}, "elevation", "less than or equal to 20000."),
    ],
)
def test_errors_are_said_at_their_field(
    typing: Any, typed: dict[str, str], field: str, message: str
) -> None:
    before = stored()
    response = typing(**typed)
    assert response.status_code == 200
    (error,) = response.context["form"].errors[field]
    assert message in error
    assert list(response.context["form"].errors) == [field]
    assert "Nothing has been saved" in response.text
    assert f'aria-describedby="id_{field}' in response.text
    assert stored() == before


def test_headings_show_the_stored_name_beside_an_error(typing: Any) -> None:
    response = typing(name="Another name", latitude="91")
    assert (
        "<h1>Edit Frankfurt am Main International Airport (FRA)</h1>" in response.text
    )
    assert 'value="Another name"' in response.text


def test_the_code_cannot_be_changed(typing: Any) -> None:
    typing(code="ABCD", name="New")
    assert not Airport.objects.filter(pk="ABCD").exists()
    assert stored()["name"] == "New"


def test_the_second_of_two_editors_is_told(client: Client, editor: User) -> None:
    client.force_login(editor)
    form = client.get(ADDRESS).context["form"]
    values = {name: form[name].value() for name in form.fields}
    first = client.post(ADDRESS, {**values, "city": "Frankfurt"})
    second = client.post(ADDRESS, {**values, "name": "FRA Airport"})
    assert first.status_code == 302
    assert second.status_code == 200
    assert "Somebody else has changed this airport" in second.text
    assert stored()["city"] == "Frankfurt"
    assert stored()["name"] == "Frankfurt am Main International Airport"


def test_somebody_who_saves_in_the_last_moment_is_not_overwritten(
    typing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = AirportForm.clean

    def clean_and_be_overtaken(form: AirportForm) -> dict[str, Any]:
        cleaned = clean(form)
        Airport.objects.filter(pk="EDDF").update(city="Frankfurt")
        return cleaned

    monkeypatch.setattr(AirportForm, "clean", clean_and_be_overtaken)
    response = typing(name="FRA Airport")
    assert response.status_code == 200
    assert "Somebody else has changed this airport" in response.text
    assert stored()["city"] == "Frankfurt"
    assert stored()["name"] == "Frankfurt am Main International Airport"


def test_who_is_not_logged_in_is_asked_to(client: Client) -> None:
    for response in (client.get(ADDRESS), client.post(ADDRESS, {"name": "x"})):
        assert response.status_code == 302
        assert response["Location"] == f"/login/?next={ADDRESS}"


def test_who_may_not_is_told(client: Client) -> None:
    client.force_login(User.objects.create_user("reader"))
    response = client.get(ADDRESS)
    assert response.status_code == 403
    assert "You may not do this" in response.text
    assert client.post(ADDRESS, {"name": "x"}).status_code == 403
    assert 'href="/airports/EDDF/edit/"' not in client.get("/airports/EDDF/").text


def test_a_form_from_elsewhere_is_refused(editor: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(editor)
    assert client.post(ADDRESS, {"name": "x"}).status_code == 403


def test_an_airport_that_is_not_there(client: Client, editor: User) -> None:
    client.force_login(editor)
    assert client.get("/airports/XXXX/edit/").status_code == 404


def test_other_methods_are_refused(client: Client, editor: User) -> None:
    client.force_login(editor)
    assert client.put(ADDRESS).status_code == 405
    assert client.post("/airports/EDDF/").status_code == 405
