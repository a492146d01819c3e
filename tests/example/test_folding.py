"""Letters as people type them."""

from __future__ import annotations

import pytest

from example_project.airports.folding import fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Egilsstaðir", "egilsstadir"),
        ("São Paulo", "sao paulo"),
        ("ZÜRICH", "zurich"),
        ("Łódź", "lodz"),
        ("Großenhain", "grossenhain"),
        ("  Saint\tJohn's \n", "saint john's"),
        ("ＦＲＡ", "fra"),
        ("İzmir", "izmir"),
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_folding_twice_is_folding_once() -> None:
    assert fold(fold("Þórshöfn Ærø")) == fold("Þórshöfn Ærø") == "thorshofn aero"
