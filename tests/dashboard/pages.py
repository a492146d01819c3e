"""The addresses of the statistics, and what holds for each page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Self
from urllib.parse import urlsplit

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


class Parsed(HTMLParser):
    """The tags of a page, and whether all that was opened is closed."""

    VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "path", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    @classmethod
    def of(cls, text: str) -> Self:
        parsed = cls()
        parsed.feed(text)
        parsed.close()
        return parsed

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def check(text: str) -> Parsed:
    """Assert what a strict policy, and a screen reader, need of every page."""
    page = Parsed.of(text)
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for script in page.all("script"):
        assert script["src"]
    for tag, attrs in page.tags:
        assert tag != "style"
        assert not {name for name in attrs if name == "style" or name[:2] == "on"}
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set((attrs.get(name) or "").split()) <= set(ids), (tag, attrs)
        for name in ("src", "href", "action", "formaction"):
            assert not urlsplit(attrs.get(name) or "").netloc, "other host"
        assert "data-live" not in attrs or attrs["id"]
    return page
