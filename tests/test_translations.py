"""Every text of pages is there in German, and compiled as it was written."""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.translation.template import templatize

from tests.docs.pages import ROOT

PACKAGE = ROOT / "s3cache"
CATALOGUES = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))
FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"}

pytestmark = pytest.mark.parametrize("path", CATALOGUES, ids=lambda p: p.parts[-3])


def written(path: Path) -> dict[str, list[str]]:
    """The texts of a ``.po`` file, by what they translate."""
    found = {}
    for block in path.read_text().split("\n\n")[1:]:
        words: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if begun := re.match(r'(msg\w+(?:\[\d\])?) (".*")$', line):
                name = begun[1]
                words[name] = ast.literal_eval(begun[2])
            elif line.startswith('"'):
                words[name] += ast.literal_eval(line)
        key = words.pop("msgid")
        words.pop("msgid_plural", None)
        found[key] = list(words.values())
    return found


def in_modules() -> Iterator[str]:
    for module in PACKAGE.rglob("*.py"):
        text = module.read_text()
        if "django.utils.translation" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in FUNCTIONS
            ):
                yield ast.literal_eval(node.args[0])


def in_templates() -> Iterator[str]:
    for template in PACKAGE.rglob("templates/**/*.html"):
        text = templatize(template.read_text())
        for found in re.findall(r"(?:gettext|\b_)\(u?('(?:[^'\\]|\\.)*')", text):
            yield ast.literal_eval(found)


def test_no_text_is_missing(path: Path) -> None:
    used = {*in_modules(), *in_templates()}
    assert len(used) > 100
    assert used <= written(path).keys(), "run `make messages`"
    assert all(all(texts) for texts in written(path).values())


def test_what_is_compiled_is_what_is_written(path: Path) -> None:
    with path.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for key, texts in written(path).items():
        if len(texts) == 1:
            assert compiled.gettext(key) == texts[0], "run `make messages`"
        else:
            plural = compiled.ngettext(key, key, 2)
            assert [compiled.ngettext(key, key, 1), plural] == texts


def test_placeholders_are_kept(path: Path) -> None:
    for key, texts in written(path).items():
        wanted = set(re.findall(r"%\(\w+\)[sd]", key))
        for text in texts:
            assert set(re.findall(r"%\(\w+\)[sd]", text)) == wanted
