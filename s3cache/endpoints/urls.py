"""The endpoints' URLs."""

from __future__ import annotations

from django.urls import path

from s3cache.endpoints.health import live, ready
from s3cache.endpoints.refresh import refresh

app_name = "s3cache"

urlpatterns = [
    path("live/", live, name="live"),
    path("ready/", ready, name="ready"),
    path("refresh/<str:label>/", refresh, name="refresh"),
]
