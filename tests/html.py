"""HTML as far as tests look at it, and what a strict browser asks of it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import urlsplit

_VOID: Final = frozenset(
    {"br", "hr", "img", "input", "link", "meta", "path", "rect", "source"}
)


class Page(HTMLParser):
    """The tags of a page; ``open`` are those that nothing has closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def check_html(text: str) -> Page:
    """Assert what a strict policy, and a screen reader, need of a page."""
    page = Page(text)
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
    return page
