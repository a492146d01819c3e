"""What the benchmark of a large table judges."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import large

#: The steps that read a first page, by the order that it is in.
PAGES = {"key": "first page", "sku": "by sku"}


def figures(order: str, download: float) -> dict[str, dict[str, Any]]:
    """Those of a run in which all is well but, perhaps, a first page."""
    found: dict[str, dict[str, Any]] = {
        step: {"seconds": 1.0, "memory": 1, "asked": {}} for step in large.STEPS
    }
    found["load"] |= {"batches": 1, "asked": {"PUT _log": 1}}
    found["first get"] |= {"tail": 0}
    for page in PAGES.values():
        found[page] |= {"bytes": 10_000_000, "download": 1.0}
    found[PAGES[order]]["download"] = download
    found["one row"]["asked"] = {"PUT _packs": 1}
    found["reads"] |= {"few": 1.0}
    return found


@pytest.mark.parametrize("order", PAGES)
@pytest.mark.parametrize(("download", "is_met"), [(2.0, True), (0.5, False)])
def test_a_first_page_is_compared_with_the_download(
    order: str, download: float, is_met: bool
) -> None:
    found = dict(large.targets(figures(order, download)))
    [words] = [words for words in found if f"first page by {order}" in words]
    assert found.pop(words) is is_met
    assert all(found.values())
    assert words == (
        f"a new host's first page by {order} takes {1 / download:.2f} times the "
        f"download of the 10.0 MB of packs, {download:.2f} s (at most 1; so it is "
        f"where a line takes 80 Mbit a second)"
    )


@pytest.mark.parametrize(("asked", "status"), [([], 0), (["--check"], 1)])
def test_what_is_missed_fails_if_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    status: int,
) -> None:
    found = figures("key", download=0.5)
    monkeypatch.setattr(large, "_run", lambda step, *given: found[step])
    assert large.main(asked) == status
    assert capsys.readouterr().out.count("MISSED") == 1
