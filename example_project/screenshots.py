"""
Takes the pictures of the statistics page for the documentation.

    python -m example_project.screenshots --minutes 20

The example site is served by two processes, on a replica and a bucket of their
own, and visited as sites are: a few airports by many, most by few, now and
then an edit. Then Chromium looks at its admin, in the light and in the dark.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PASSWORD = "only for the pictures"  # noqa: S105  (of a site that is removed)
STATISTICS = "/admin/s3cache/statistics/"

#: Name of a picture, its address, and what of it is shown.
PICTURES = [
    ("statistics", STATISTICS, {"width": 1200, "height": 1050}),
    ("models", f"{STATISTICS}models/", {"width": 1200, "height": 560}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    minutes: float = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as sites:
        visit(sites, minutes * 60)
        for name, size in photograph(sites[0]):
            sys.stdout.write(f"{name}: {size / 1024:.0f} KB\n")


@contextmanager
def served(folder: Path) -> Iterator[list[str]]:
    """The addresses of two processes that serve the site."""
    environment = {
        **os.environ,
        "EXAMPLE_VAR": str(folder),
        "EXAMPLE_ADMIN_PASSWORD": PASSWORD,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "demo", "--no-serve"], env=environment, check=True)  # noqa: S603  (this project's)
    ports = [free_port(), free_port()]
    command = [*manage, "runserver", "--noreload", "--insecure"]
    servers = [
        subprocess.Popen(  # noqa: S603  (this project's)
            [*command, f"127.0.0.1:{port}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    sites = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        for site in sites:
            wait_for(site)
        yield sites
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(site: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{site}/s3cache/live/").close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{site} does not answer.")


def visit(sites: Sequence[str], seconds: float) -> None:
    """Visit the site for so long, in waves, with an edit now and then."""
    import airportsdata

    chance = random.Random(1)  # noqa: S311
    codes = sorted(airportsdata.load("ICAO"))
    chance.shuffle(codes)
    countries = ["DE", "FR", "US", "IS", "JP", "NZ", "BR", "KE"]
    editor = Editor(sites[0])
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        site = chance.choice(sites)
        code = codes[min(int(chance.paretovariate(0.7)) - 1, len(codes) - 1)]
        path = chance.choices(
            ["/", f"/airports/{code}/", f"/countries/{chance.choice(countries)}/"]
            + ["/countries/", f"/airports/?q={code[:2]}"],
            [3, 12, 3, 1, 2],
        )[0]
        urllib.request.urlopen(site + path).close()  # noqa: S310
        if number % 200 == 0:
            editor.edit(code)
        # Rush hours of a few minutes.
        time.sleep(0.08 if time.monotonic() % 300 < 120 else 0.2)


class Editor:
    """Somebody who is logged in and saves airports."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._cookies)
        )
        self._opener.open(f"{site}/login/").close()
        self._post("/login/", username="admin", password=PASSWORD)

    def edit(self, code: str) -> None:
        """Change the name of a country a little."""
        self._post(
            "/admin/airports/country/DE/change/", name=f"Germany, seen from {code}"
        )

    def _post(self, path: str, **form: str) -> None:
        token = next(one.value for one in self._cookies if one.name == "csrftoken")
        data = urlencode({**form, "csrfmiddlewaretoken": token or ""}).encode()
        self._opener.open(f"{self._site}{path}", data).close()


def photograph(site: str) -> Iterator[tuple[str, int]]:
    """Take all pictures; yield the path of each, and its size in bytes."""
    IMAGES.mkdir(exist_ok=True)
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=options
        )
        for scheme in ("light", "dark"):
            look: Any = {"color_scheme": scheme, "base_url": site}
            page = browser.new_context(**look).new_page()
            page.goto("/admin/")
            page.get_by_label("Username").fill("admin")
            page.get_by_label("Password").fill(PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url("/admin/")
            for name, address, size in PICTURES:
                page.set_viewport_size(size)  # type: ignore[arg-type]
                page.goto(address)
                # What is beside the statistics is the admin's.
                page.evaluate("document.querySelector('#nav-sidebar')?.remove()")
                path = IMAGES / f"{name}-{scheme}.png"
                page.screenshot(path=path)
                yield str(path.relative_to(ROOT)), path.stat().st_size
        browser.close()


if __name__ == "__main__":
    main()
