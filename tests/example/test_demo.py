"""``manage.py demo`` as a person would use it: over HTTP, on both stores."""

from __future__ import annotations

import http.cookiejar
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import uncovered
from tests.conftest import BUCKET
from tests.s3_server import S3Server

PROJECT = Path(__file__).parent.parent.parent
# Several servers are started, and each loads or reads all airports.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Browser:
    """A visitor with cookies."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )

    def get(self, address: str) -> str:
        with self._opener.open(self.site + address, timeout=60) as response:
            text: str = response.read().decode()
        return text

    def send(self, address: str, **typed: str) -> str:
        """Open a page, type into its last form, and send it."""
        page = self.get(address)
        form = page[page.rindex('<form method="post"') :]
        values = dict(
            re.findall(
                r'<input type="(?!search)\w+" name="(\w+)" value="([^"]*)"', form
            )
        )
        for name, options in re.findall(
            r'<select [^>]*name="(\w+)"[^>]*>(.*?)</select>', form, re.DOTALL
        ):
            chosen = re.search(r'value="([^"]*)" selected', options)
            values[name] = chosen[1] if chosen else ""
        data = urllib.parse.urlencode({**values, **typed}).encode()
        with self._opener.open(self.site + address, data, timeout=60) as response:
            text: str = response.read().decode()
        return text


@pytest.fixture(params=["directory", "bucket"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a site of its own, in a directory or a bucket."""
    variables = {
        **{
            name: value
            for name, value in uncovered.environment().items()
            if not name.startswith(("EXAMPLE_", "DJANGO_"))
        },
        "EXAMPLE_VAR": str(tmp_path),
    }
    if request.param == "bucket":
        server: S3Server = request.getfixturevalue("s3_server")
        variables |= {
            "EXAMPLE_S3_BUCKET": BUCKET,
            "EXAMPLE_S3_ENDPOINT": server.address,
            "EXAMPLE_S3_PREFIX": f"demo-{tmp_path.name}",
            "EXAMPLE_S3_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
    return variables


@contextmanager
def demo(environment: dict[str, str]) -> Iterator[tuple[Browser, str]]:
    """Run the demo; give a browser and the admin's password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    output = Path(environment["EXAMPLE_VAR"]) / "output"
    with output.open("w") as out:
        process = subprocess.Popen(  # noqa: S603  (this Python, fixed arguments)
            [sys.executable, "manage.py", "demo", address],
            cwd=PROJECT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        browser = Browser(f"http://{address}")
        for _ in range(600):
            try:
                browser.get("/login/")
                break
            except urllib.error.URLError:
                assert process.poll() is None, output.read_text()
                time.sleep(0.2)
        text = output.read_text()
        assert f"http://{address}/admin/" in text
        password = re.search(r"Login +admin / (\S+)", text)
        assert password
        yield browser, password[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def cost(page: str) -> str:
    """What the footer says."""
    text = re.search(r"This page cost <strong[^>]*>([^<]+)</strong>", page)
    assert text
    return text[1]


def forget_the_replica(directory: Path) -> None:
    for path in directory.glob("replica*"):
        path.unlink()


def test_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    with demo(environment) as (browser, password):
        # Reading, for nothing.
        browser.get("/airports/EDDF/")
        page = browser.get("/airports/EDDF/")
        assert "Frankfurt am Main International Airport" in page
        assert cost(page).startswith("0 store requests, 0 queries, ")
        assert cost(page).endswith(", cache: hit")

        # Writing, at little cost.
        page = browser.send("/login/", username="admin", password=password)
        assert "Log out" in page
        page = browser.send("/airports/EDDF/edit/", name="Rhein-Main Airport")
        assert "Rhein-Main Airport (FRA) has been saved, with 1 store request." in page
        assert "Rhein-Main Airport" in browser.get(
            "/admin/airports/airport/EDDF/change/"
        )

    # The bucket is all that counts: what was written is there without the
    # replica, and starting again neither loses nor doubles anything.
    forget_the_replica(tmp_path)
    with demo(environment) as (browser, _):
        assert "Rhein-Main Airport" in browser.get("/airports/EDDF/")
        assert "0 rows added, 0 changed" in (tmp_path / "output").read_text()
