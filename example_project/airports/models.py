"""Airports, and the countries and time zones that they lie in."""

from __future__ import annotations

import datetime
import zoneinfo

from django.core.validators import (
    MaxValueValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from s3cache.models import S3Model

from .fields import SearchField


class Country(S3Model):
    """A country, territory or dependency that has a code of its own."""

    code = models.CharField(
        "ISO 3166-1 code",
        max_length=2,
        primary_key=True,
        validators=[RegexValidator(r"^[A-Z]{2}\Z", "Two capital letters.")],
    )
    name = models.CharField(max_length=80, unique=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "countries"

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("airports:country", args=[self.code])

    @property
    def flag(self) -> str:
        """The flag as an emoji: the code in regional indicator letters."""
        return "".join(chr(ord(letter) - ord("A") + 0x1F1E6) for letter in self.code)


class TimeZone(S3Model):
    """A zone of the IANA time zone database."""

    name = models.CharField(max_length=40, primary_key=True)
    region = models.CharField(
        max_length=12, db_index=True, help_text="The part before the first slash."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    def local_time(self) -> datetime.datetime | None:
        """Return the time there now; None if this machine lacks the zone."""
        try:
            return timezone.localtime(timezone=zoneinfo.ZoneInfo(self.name))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            return None


class Airport(S3Model):
    """An airport or landing strip, known by its ICAO or a local code."""

    code = models.CharField(
        "ICAO code",
        max_length=4,
        primary_key=True,
        validators=[RegexValidator(r"^[A-Z0-9_]{4}\Z", "Four capitals or digits.")],
        help_text="Or a local code where ICAO gave none.",
    )
    iata = models.CharField(
        "IATA code",
        max_length=3,
        blank=True,
        validators=[RegexValidator(r"^[A-Z]{3}\Z", "Three capital letters.")],
        help_text="As on tickets and luggage; empty if it has none.",
    )
    name = models.CharField(max_length=100)
    city = models.CharField(max_length=60, blank=True)
    subdivision = models.CharField(
        max_length=60, blank=True, help_text="State, province or region."
    )
    country = models.ForeignKey(
        Country,
        on_delete=models.PROTECT,
        related_name="airports",
        db_index=False,  # the index by_country_and_name begins with it
    )
    timezone = models.ForeignKey(
        TimeZone,
        verbose_name="time zone",
        on_delete=models.PROTECT,
        related_name="airports",
    )
    elevation = models.FloatField(
        help_text="Feet above the level of the sea.",
        validators=[MinValueValidator(-1500), MaxValueValidator(20_000)],
    )
    latitude = models.FloatField(
        help_text="Degrees, north is positive.",
        validators=[MinValueValidator(-90), MaxValueValidator(90)],
    )
    longitude = models.FloatField(
        help_text="Degrees, east is positive.",
        validators=[MinValueValidator(-180), MaxValueValidator(180)],
    )
    search_text = SearchField(sources=("code", "iata", "name", "city", "subdivision"))
    changed_at = models.DateTimeField("last changed", auto_now=True)

    class Meta:
        ordering = ["name", "code"]
        indexes = [
            models.Index(
                fields=["country", "name", "code"], name="by_country_and_name"
            ),
            models.Index(fields=["name", "code"], name="by_name"),
            models.Index(fields=["latitude", "longitude"], name="by_position"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["iata"],
                condition=~Q(iata=""),
                name="one_airport_per_iata_code",
                # This code makes Django show the message at the field.
                violation_error_code="unique",
                violation_error_message="Another airport has this IATA code.",
            ),
            models.CheckConstraint(
                condition=Q(latitude__range=(-90, 90), longitude__range=(-180, 180)),
                name="position_is_on_earth",
            ),
        ]

    class S3Meta:
        partitions = {"by_country": ["country"]}

    def __str__(self) -> str:
        return f"{self.name} ({self.iata or self.code})"

    def get_absolute_url(self) -> str:
        return reverse("airports:detail", args=[self.code])

    @property
    def place(self) -> str:
        """City and subdivision, as far as they are known."""
        return ", ".join(filter(None, (self.city, self.subdivision)))

    @property
    def elevation_in_metres(self) -> float:
        """The elevation in metres, as most of the world has it."""
        return self.elevation * 0.3048
