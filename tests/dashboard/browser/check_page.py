"""The statistics as people have them: with mouse and keyboard, in the dark,
on a telephone, with a screen reader, and without permission."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import MakePage

ROOT = "/control/s3cache/statistics/"

# It waits no longer than it has to; the machine may be busy.
expect.set_options(timeout=30_000)


def press_until(page: Page, key: str, text: str) -> None:
    """Move the focus with a key until it is on what has this text."""
    for _ in range(80):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"{key} does not lead to {text!r}")


def test_numbers_move_without_loading_the_page_again(visitor: MakePage) -> None:
    with visitor() as page:
        page.goto("/control/")
        page.get_by_role("link", name="Statistics").first.click()
        page.goto(f"{ROOT}models/testapp.product/?scope=process")
        page.evaluate("window.isTheSame = true")
        reads = page.locator(".s3c-tiles dt", has_text="Reads").locator("+ dd")
        before = int(reads.inner_text())
        for _ in range(7):
            page.request.get("/visit/")
        expect(reads).to_have_text(str(before + 14))
        hold = page.get_by_role("button", name="Hold")
        hold.click()
        page.request.get("/visit/")
        expect(hold).to_have_attribute("aria-pressed", "true")
        expect(reads).to_have_text(str(before + 14))
        hold.click()
        expect(reads).to_have_text(str(before + 16))
        assert page.evaluate("window.isTheSame")
        # What the reader is at stays where it is.
        page.goto(f"{ROOT}models/?scope=process")
        link = page.get_by_role("link", name="products").first
        link.focus()
        with page.expect_response(re.compile("scope=process")):
            page.request.get("/visit/")
        expect(link).to_be_focused()


def test_warm_with_the_keyboard_and_clear_with_the_mouse(visitor: MakePage) -> None:
    with visitor() as page:
        page.goto(f"{ROOT}models/testapp.product/")
        press_until(page, "Tab", "Warm")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Read what is usually asked of prod")).to_be_visible()
        press_until(page, "Tab", "Yes: Warm")
        page.keyboard.press("Enter")
        expect(page.get_by_text("results have been stored.")).to_be_visible()
        assert page.locator(".s3c-steps > :visible").count() == 1
        press_until(page, "Tab", "Back")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ROOT}models/testapp.product/")
        page.get_by_role("button", name="Clear").first.click()
        page.get_by_role("button", name="Yes: Clear").click()
        expect(page.get_by_text("have been removed.")).to_be_visible()
        page.goto("/control/")
        expect(page.get_by_text("testapp.product").first).to_be_visible()


def test_an_entry_is_found_shown_and_deleted(visitor: MakePage) -> None:
    with visitor() as page:
        page.goto(f"{ROOT}keys/")
        page.get_by_label("Key").fill("*onerror*")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="<img src=x").click()
        expect(page.get_by_role("region", name="Value")).to_contain_text(
            "</pre><script>alert(2)</script>"
        )
        page.get_by_role("button", name="Delete this entry").click()
        page.get_by_role("button", name="Yes: Delete").click()
        expect(page.get_by_text("The entry is gone.")).to_be_visible()


def test_a_viewer_has_no_buttons_and_others_nothing(visitor: MakePage) -> None:
    with visitor("viewer") as page:
        for address in ("models/testapp.product/", "hosts/", "keys/?key=*"):
            page.goto(ROOT + address)
            assert page.locator("#content form[method=post]").count() == 0
    with visitor("nobody") as page:
        page.goto("/control/")
        expect(page.get_by_role("link", name="Statistics")).to_have_count(0)
        response = page.request.get(ROOT)
        assert response.status == 403


def test_the_debug_toolbar_shows_the_reads(visitor: MakePage) -> None:
    with visitor() as page:
        text = page.request.get("/visit/debugged/").text()
        (request_id,) = re.findall(r'data-request-id="([^"]+)"', text)
        shown = page.request.get(
            "/__debug__/render_panel/",
            params={"request_id": request_id, "panel_id": "ReadsPanel"},
        ).json()
        assert "testapp_product" in shown["content"]
        assert "count" in shown["content"]


@pytest.mark.parametrize(
    ("pages", "options"),
    [
        (["", "keys/?key=*"], {"color_scheme": "light"}),
        (
            ["models/testapp.product/", "hosts/"],
            {
                "color_scheme": "dark",
                "locale": "de",
                "viewport": {"width": 400, "height": 800},
            },
        ),
    ],
    ids=["light", "dark, 400 pixels, German"],
)
def test_everybody_can_read_it(
    visitor: MakePage, axe: str, pages: list[str], options: dict[str, Any]
) -> None:
    with visitor(**options) as page:
        page.request.get("/visit/")
        for address in pages:
            page.goto(ROOT + address)
            page.evaluate(axe)
            found = page.evaluate("axe.run()")
            problems = [
                f"{one['id']}: {node['html']}: {node['failureSummary']}"
                for one in found["violations"]
                for node in one["nodes"]
            ]
            assert problems == [], f"{address}: {problems}"
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= page.evaluate("window.innerWidth"), address
