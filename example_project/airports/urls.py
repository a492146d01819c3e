"""The catalogue's pages."""

from __future__ import annotations

from django.urls import path

from . import api, views

app_name = "airports"

urlpatterns = [
    path("", views.index, name="index"),
    path("airports/", views.search, name="search"),
    path("airports/<str:code>/", views.detail, name="detail"),
    path("airports/<str:code>/edit/", views.edit, name="edit"),
    path("api/airports/", api.airports, name="api-airports"),
    path("countries/", views.countries, name="countries"),
    path("countries/<str:code>/", views.country, name="country"),
]
