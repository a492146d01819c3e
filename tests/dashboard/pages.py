"""The addresses of the statistics, and what holds for each page."""

from __future__ import annotations

from tests.html import Page, check_html

ROOT = "/admin/s3cache/statistics/"
PAGES = [
    "",
    "?period=day&scope=host",
    "?period=month&table=1",
    "models/",
    "models/library.author/",
    "caches/",
    "hosts/",
    "commits/",
    "commits/?times=1",
    "queries/",
    "keys/",
]


def check(text: str) -> Page:
    """Assert what holds for each page; what is marked live has an id."""
    page = check_html(text)
    assert all(attrs["id"] for _, attrs in page.tags if "data-live" in attrs)
    return page
