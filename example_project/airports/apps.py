"""The catalogue of airports."""

from __future__ import annotations

from django.apps import AppConfig


class AirportsConfig(AppConfig):
    name = "example_project.airports"
    label = "airports"
    verbose_name = "Airport Atlas"
