"""The search form and the form in which an airport is changed."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.db.models import Case, IntegerField, Q, QuerySet, Value, When

from .folding import fold
from .models import Airport, Country, TimeZone
from .widgets import LongSelect


class SearchForm(forms.Form):
    """What a visitor looks for; everything is optional."""

    ORDERS: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "name": ("Name", ("name", "code")),
        "city": ("City", ("city", "name", "code")),
        "code": ("Code", ("code",)),
        "highest": ("Highest first", ("-elevation", "name", "code")),
    }

    q = forms.CharField(
        label="Search",
        required=False,
        max_length=100,
        widget=forms.TextInput(
            attrs={"type": "search", "placeholder": "Name, city or code"}
        ),
    )
    country = forms.ModelChoiceField(
        Country.objects.all(),
        required=False,
        empty_label="All countries",
        widget=LongSelect,
    )
    zone = forms.ModelChoiceField(
        TimeZone.objects.all(),
        label="Time zone",
        required=False,
        empty_label="All time zones",
        widget=LongSelect,
    )
    order = forms.ChoiceField(
        label="Order by",
        required=False,
        choices=[(name, label) for name, (label, _) in ORDERS.items()],
    )
    iata = forms.BooleanField(label="Only with an IATA code", required=False)

    def airports(self) -> QuerySet[Airport]:
        """Return what was asked for; nothing if the form is not valid."""
        if not self.is_valid():
            return Airport.objects.none()
        wanted = self.cleaned_data
        if country := wanted["country"]:
            airports = Airport.objects.partition("by_country", country=country)
        else:
            airports = Airport.objects.all()
        if zone := wanted["zone"]:
            airports = airports.filter(timezone=zone)
        if wanted["iata"]:
            airports = airports.exclude(iata="")
        for word in fold(wanted["q"]).split():
            airports = airports.filter(search_text__contains=word)
        order: list[str | Case] = [*self.ORDERS[wanted["order"] or "name"][1]]
        if wanted["q"]:
            order.insert(0, relevance(wanted["q"]))
        return airports.select_related("country").order_by(*order)


def relevance(text: str) -> Case:
    """Rank exact codes first, then cities and names that begin like this."""
    return Case(
        When(Q(iata__iexact=text) | Q(code__iexact=text), then=Value(0)),
        When(Q(city__istartswith=text) | Q(name__istartswith=text), then=Value(1)),
        default=Value(2),
        output_field=IntegerField(),
    )


class UpperCaseField(forms.CharField):
    """Text in capitals, however it was typed."""

    def to_python(self, value: object) -> str:
        return (super().to_python(value) or "").upper()


class AirportForm(forms.ModelForm):  # type: ignore[type-arg]
    """
    An airport's facts.

    The form carries the time of the change that it shows, so that of two
    people who edit one airport the second is told instead of undoing the
    first one's work.
    """

    CHANGED = forms.ValidationError(
        "Somebody else has changed this airport since you opened the form. "
        "Open it again to see their version.",
        code="changed",
    )

    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Airport
        fields = [
            *("name", "iata", "city", "subdivision", "country", "timezone"),
            *("latitude", "longitude", "elevation"),
        ]
        field_classes = {"iata": UpperCaseField}
        widgets = {"country": LongSelect, "timezone": LongSelect}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["seen"] = self.instance.changed_at.isoformat()

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("seen") != self.initial["seen"]:
            raise self.CHANGED
        return cleaned

    def save(self, commit: bool = True) -> Airport:
        """
        Save the airport as far as it is still what `clean` has seen.

        Raise `TransactionConflict` if somebody changed it in between.
        """
        airport: Airport = super().save(commit=False)
        if commit:
            airport.save(if_unchanged=True)
        return airport
