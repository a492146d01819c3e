"""What the README and the pages of the documentation say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<language>[^`]*)$")
_HEADING = re.compile(r"^#{1,4} (?P<text>.+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_FILE = re.compile(r"^# (?P<path>[\w/]+\.py)(?P<at_the_end>, at the end)?$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``line`` is the number of its first line of text."""

    language: str
    text: str
    line: int

    def files(self) -> Iterator[tuple[str, bool, str, int]]:
        """
        The files that the block shows: path, whether at the end, text, line.

        A line such as ``# shop/models.py`` begins one. What comes before
        the first belongs to no file, and has the path "".
        """
        path, at_the_end, text, line = "", False, "", self.line
        for number, one in enumerate(self.text.splitlines(keepends=True), self.line):
            if found := _FILE.match(one.rstrip()):
                if text.strip():
                    yield path, at_the_end, text, line
                path, at_the_end = found["path"], bool(found["at_the_end"])
                text, line = "", number + 1
            else:
                text += one
        if text.strip():
            yield path, at_the_end, text, line


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    @property
    def name(self) -> str:
        """The path from the project's root."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, those in comments included."""
        return self._blocks_of(self.text)

    @cached_property
    def visible_blocks(self) -> list[Block]:
        """The fenced blocks that readers see."""
        hidden = re.compile(r"^<!--$.*?^-->$", re.M | re.S)
        return self._blocks_of(
            hidden.sub(lambda found: "\n" * found[0].count("\n"), self.text)
        )

    def _blocks_of(self, text: str) -> list[Block]:
        found, ticks, language, begun, lines = [], "", "", 0, list[str]()
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            if not ticks and (fence := _FENCE.match(line.rstrip("\n"))):
                ticks, language = fence["ticks"], fence["language"]
                begun, lines = number + 1, []
            elif ticks and line.rstrip() == ticks:
                found.append(Block(language, "".join(lines), begun))
                ticks = ""
            elif ticks:
                lines.append(line)
        if ticks:
            raise ValueError(f"{self.name}:{begun}: a block that does not end")
        return found

    @cached_property
    def prose(self) -> str:
        """All but the fenced blocks."""
        return re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", self.text, flags=re.M | re.S)

    @cached_property
    def headings(self) -> list[str]:
        return [
            found["text"]
            for line in self.prose.splitlines()
            if (found := _HEADING.match(line))
        ]

    @cached_property
    def anchors(self) -> list[str]:
        """The anchors of the headings, as GitHub and Sphinx make them."""
        return [
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in self.headings
        ]

    @cached_property
    def links(self) -> list[str]:
        """Where links lead, inline code left out."""
        prose = re.sub(r"`[^`\n]*`", "x", self.prose)
        return [found["target"] for found in _LINK.finditer(prose)]

    def rows(self) -> Iterator[list[str]]:
        """The cells of all rows of tables."""
        for line in self.prose.splitlines():
            if line.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
                yield [cell.strip() for cell in cells]


def page(name: str) -> Page:
    """The page ``name`` of ``docs/``."""
    return Page(DOCS / name)


def pages() -> list[Page]:
    """The README, and all pages of the documentation."""
    found = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    return [Page(ROOT / "README.md"), *map(Page, sorted(found))]
