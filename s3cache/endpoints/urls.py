"""The endpoints' URLs."""

from __future__ import annotations

from django.urls import path

from s3cache.endpoints.health import live, ready
from s3cache.endpoints.refresh import refresh
from s3cache.endpoints.statistics import metrics, statistics

app_name = "s3cache"

urlpatterns = [
    path("live/", live, name="live"),
    path("ready/", ready, name="ready"),
    path("metrics/", metrics, name="metrics"),
    path("statistics/", statistics, name="statistics"),
    path("refresh/<str:label>/", refresh, name="refresh"),
]
