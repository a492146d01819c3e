"""What a machine has not got is named, and is no failure."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.load import __main__ as load
from benchmarks.missing import IS_MISSING, Missing
from benchmarks.peers import __main__ as peers
from benchmarks.peers.peers import Peer


def test_who_cannot_be_visited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert load.main(["--quick"]) == IS_MISSING
    assert capsys.readouterr().out == "MISSING: wrk: make bench-deps\n"


def test_a_peer_that_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(*given: Any) -> Any:
        raise Missing("it: install it")

    assert peers.measure(Peer("it", measure), "http://nowhere", 1.0) == IS_MISSING
    assert capsys.readouterr().out == "it: install it\n"
