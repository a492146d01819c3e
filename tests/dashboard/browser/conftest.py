"""A site, and Chromium to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.dashboard.browser.serve import served

MakePage = Callable[..., Any]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site."""
    os.environ["S3CACHE_TEST_FOLDER"] = str(tmp_path_factory.mktemp("site"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.dashboard.browser.settings"
    with served() as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    with sync_playwright() as playwright:
        # As root it refuses to run in a sandbox.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        made = playwright.chromium.launch(
            executable_path=path, args=[*options, "--disable-gpu"]
        )
        yield made
        made.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, as its package has it."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


@pytest.fixture(scope="session")
def visitor(browser: Browser, site: str) -> MakePage:
    """A function that opens the site for somebody, who logs in by keyboard.

    Once: after that the cookies are known. In the end nothing may have been
    said on the console: no error of a script, and nothing that the policy for
    content has refused.
    """

    cookies: dict[str, Any] = {}

    @contextmanager
    def visit(name: str = "root", **options: Any) -> Iterator[Page]:
        context = browser.new_context(
            base_url=site, storage_state=cookies.get(name), **options
        )
        context.set_default_timeout(30_000)
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        if name not in cookies:
            page.goto("/control/")
            page.keyboard.type(name)  # the first field has the focus
            page.keyboard.press("Tab")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            page.wait_for_url("/control/")
            cookies[name] = context.storage_state()
        yield page
        context.close()
        assert said == []

    return visit
