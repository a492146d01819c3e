"""A person with an empty directory and a terminal, who follows a page.

What the page shows is done literally, shell lines included, by bash; what is
in comments is not seen. Two things are not as on a fresh machine: ``pip``
links what this Python has installed, and servers listen at a free port.
"""

from __future__ import annotations

import os
import shlex
import signal
import site
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT, Block, Page
from tests.docs.project import commands

#: What `manage.py createsuperuser` asks for, and what is typed.
ANSWERS: Final = {
    "Username": "boss",
    "Email": "boss@example.com",
    "Password:": "the kettle is on",
    "Password (again)": "the kettle is on",
}
_PIP = """\
pip() {
    test "$*" = "install django-s3cache" || exit 1
    python -c 'import site, sys; from pathlib import Path
Path(site.getsitepackages()[0], "linked.pth").write_text("\\n".join(sys.argv[1:]))' \\
        %s
}
"""
# What Django's shell executes when it is given text: the page's examples.
_SHELL = """\
import doctest
_test = doctest.DocTestParser().get_doctest({text!r}, {{**globals()}}, {name!r}, "", 0)
_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
raise SystemExit(doctest.DocTestRunner(optionflags=_flags).run(_test).failed)
"""
# Runs a command in a terminal of its own.
_TERMINAL = """\
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


class Person:
    """Follows pages in ``directory``, which is empty at first."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        #: What was printed, by command.
        self.seen: dict[str, str] = {}
        #: The first lines of pages that servers gave, by path.
        self.visited: dict[str, str] = {}
        self._state = directory.parent / "state.sh"
        # Those of a person who has just logged in.
        known = {
            "HOME": str(directory.parent),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "error",
            **environment,
        }
        self._state.write_text(
            "".join(f"export {name}={shlex.quote(known[name])}\n" for name in known)
        )
        linked = shlex.join([str(ROOT), *site.getsitepackages()])
        self._before = f". {shlex.quote(str(self._state))}\n{_PIP % linked}"
        self._typed = ""

    def follow(self, page: Page, visit: tuple[str, ...] = ()) -> None:
        """Do what is seen on the page; ``visit`` paths of each server."""
        for block in page.visible_blocks:
            if block.language == "pycon":
                self._typed += block.text
                continue
            self._leave_shell(page)
            if block.language == "python":
                self._write(block)
            elif block.language == "console":
                for command in commands(block):
                    self._enter(command, visit)
        self._leave_shell(page)

    def _write(self, block: Block) -> None:
        for name, at_the_end, text, _ in block.files():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_text() + "\n" if at_the_end else ""
            path.write_text(before + text)

    def _enter(self, command: str, visit: tuple[str, ...]) -> None:
        if command == "python manage.py shell":
            return  # what is typed there follows
        if command == "python manage.py createsuperuser":
            self._answer(command)
        elif command == "python manage.py runserver":
            self._serve(command, visit)
        else:
            self.seen[command] = self._run(command)

    def _leave_shell(self, page: Page) -> None:
        if typed := self._typed:
            self._typed = ""
            text = _SHELL.format(text=typed, name=page.name)
            self._run("python manage.py shell", input=text)

    def _script(self, command: str) -> list[str]:
        after = f"export -p > {shlex.quote(str(self._state))}"
        return ["bash", "-e", "-c", f"{self._before}\n{command}\n{after}"]

    def _run(self, command: str, **kwargs: Any) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603  (what the page says)
            self._script(command),
            cwd=self.directory,
            env={},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **kwargs,
        )
        if done.returncode:
            raise AssertionError(f"$ {command}\n{done.stdout}")
        return done.stdout

    def _answer(self, command: str) -> None:
        """Run it in a terminal, and type when it asks."""
        process = subprocess.Popen(  # noqa: S603  (what the page says)
            [sys.executable, "-c", _TERMINAL, *self._script(command)],
            cwd=self.directory,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seen, answers = "", dict(ANSWERS)
        with process:
            typing, printed = process.stdin, process.stdout
            while printed and typing and (chunk := os.read(printed.fileno(), 4096)):
                seen += chunk.decode()
                for asked in [asked for asked in answers if asked in seen]:
                    typing.write(f"{answers.pop(asked)}\n".encode())
                    typing.flush()
        if process.returncode or answers:
            raise AssertionError(f"$ {command}\n{seen}")
        self.seen[command] = seen

    def _serve(self, command: str, visit: tuple[str, ...]) -> None:
        with _server(self._script, command, self.directory) as address:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for path in visit:
                with direct.open(f"{address}{path}", timeout=60) as answer:
                    self.visited[path] = answer.read().decode()


@contextmanager
def _server(script: Any, command: str, directory: Path) -> Iterator[str]:
    """Run a server at a free port; give its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (directory.parent / "server.log").open("w+") as log:
        process = subprocess.Popen(  # noqa: S603  (what the page says)
            script(f"{command} 127.0.0.1:{port}"),
            cwd=directory,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        except OSError as error:
            log.seek(0)
            raise AssertionError(f"$ {command}\n{log.read()}") from error
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # bash, Django's reloader, Django
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
