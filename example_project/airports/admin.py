"""The normal Django admin of the catalogue."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from .models import Airport, Country, TimeZone


class FixedKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin in which a key, once given, stays: a new key is a new row."""

    def get_readonly_fields(
        self, request: HttpRequest, obj: object = None
    ) -> list[str]:
        fields = list(super().get_readonly_fields(request, obj))
        return fields if obj is None else [*fields, self.opts.pk.name]


@admin.register(Country)
class CountryAdmin(FixedKeyAdmin):
    list_display = ["name", "code"]
    search_fields = ["name", "code"]


@admin.register(TimeZone)
class TimeZoneAdmin(FixedKeyAdmin):
    list_display = ["name", "region"]
    list_filter = ["region"]
    search_fields = ["name"]


@admin.register(Airport)
class AirportAdmin(FixedKeyAdmin):
    list_display = ["name", "code", "iata", "city", "country", "elevation"]
    list_filter = ["timezone__region"]
    list_select_related = ["country"]
    search_fields = ["code", "iata", "name", "city"]
    autocomplete_fields = ["country", "timezone"]
    readonly_fields = ["changed_at"]
