"""A scratch project, in which a page's blocks are done as it says.

``python`` blocks that begin with the name of a file are that file; all others
are typed into one ``manage.py shell`` after the other. ``pycon`` blocks are
typed too, and what the shell answers is compared. The lines of ``console``
blocks are run if they are Django's commands.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, Block, Page
from tests.docs.python import Python

#: Django's commands that come to an end by themselves, as all of ours do.
_RUN = frozenset(
    ["check", "clearsessions", "dbshell", "dumpdata", "loaddata", "makemigrations"]
    + ["migrate", "test"]
)

_SETTINGS = """\
from shopsite.settings import *

# What the pages show, and this machine does not have.
for alias, database in DATABASES.items():
    if database["ENGINE"] not in ("s3cache.db", "django.db.backends.sqlite3"):
        DATABASES[alias] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": BASE_DIR / f"{alias}.sqlite3",
        }
for storage in globals().get("STORAGES", {}).values():
    storage.get("OPTIONS", {}).pop("endpoint_url", None)
for mailer in globals().get("MAILERS", {}).values():  # the console, in new projects
    mailer["BACKEND"] = "django.core.mail.backends.smtp.EmailBackend"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""


class Project:
    """A project in ``directory``, as far as pages have been followed."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str], python: Python
    ) -> None:
        self.directory = directory
        self._python = python
        self._environment = {
            **environment,
            "DJANGO_SETTINGS_MODULE": "scratch_settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}",
        }
        self._typed: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Be an empty project with an app ``shop`` without models."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run("django-admin startproject shopsite .")
        (self.directory / "scratch_settings.py").write_text(_SETTINGS)
        self.run("python manage.py startapp shop")

    def follow(self, page: Page, *, only_files: bool = False) -> None:
        """Do what the page says, from its first block to its last."""
        for block in page.blocks:
            self._follow(page, block, only_files)
        self._end_shell()

    def _follow(self, page: Page, block: Block, only_files: bool) -> None:
        if block.language == "python":
            for path, at_the_end, text, line in block.files():
                if path:
                    # A shell may know a file that is there already.
                    if (self.directory / path).exists():
                        self._end_shell()
                    self._write(path, text, at_the_end)
                elif not only_files:
                    self._type(page, "python", text, line)
        elif block.language == "pycon" and not only_files:
            self._type(page, "pycon", block.text, block.line)
        elif block.language == "console" and not only_files:
            for command in commands(block):
                self._end_shell()
                self._enter(command)

    def _write(self, name: str, text: str, at_the_end: bool) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if at_the_end else ""
        path.write_text(f"{before}\n{text}" if before else text)

    def _enter(self, command: str) -> None:
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self._environment[name] = value
        elif words[0] == "rm":
            for path in self.directory.glob(words[1]):
                path.unlink()
        elif words[:2] == ["python", "manage.py"] and (
            words[2] in _RUN or words[2].startswith("s3cache_")
        ):
            self.run(command)

    def _type(self, page: Page, kind: str, text: str, line: int) -> None:
        self._typed.append(
            {"kind": kind, "text": text, "line": line, "page": str(page.path)}
        )

    def _end_shell(self) -> None:
        if typed := self._typed:
            self._typed = []
            shell = Path(__file__).with_name("shell.py")
            self._run([str(shell)], input=json.dumps(typed))

    def run(self, command: str) -> str:
        """Run a command line in the project; return what it prints."""
        words = shlex.split(command)
        if words[0] == "django-admin":
            words[:1] = ["python", "-m", "django"]
            self._environment.pop("DJANGO_SETTINGS_MODULE", None)
        else:
            self._environment["DJANGO_SETTINGS_MODULE"] = "scratch_settings"
        target = ""
        if ">" in words:
            target = words[words.index(">") + 1]
            words = words[: words.index(">")]
        out = self._run(words[1:])
        if target:
            (self.directory / target).write_text(out)
        return out

    def _run(self, words: list[str], input: str = "") -> str:
        done = self._python.run(
            words, directory=self.directory, environment=self._environment, input=input
        )
        if done.returncode:
            pytest.fail(
                f"$ python {shlex.join(words)}\n{done.stdout}{done.stderr}",
                pytrace=False,
            )
        return done.stdout

    def copy_to(self, directory: Path) -> Project:
        """The same project in another place."""
        shutil.copytree(self.directory, directory)
        return Project(directory, self._environment, self._python)


def commands(block: Block) -> list[str]:
    """The commands of a ``console`` block, without what they print."""
    text = re.sub(r"\\\n\s*", "", block.text)
    return [line[2:].strip() for line in text.splitlines() if line.startswith("$ ")]
