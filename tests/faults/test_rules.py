"""Which rule strikes, and how often."""

from __future__ import annotations

import pytest

from tests.faults.proxy import rule_of
from tests.faults.rules import Fault, Rule, Rules


def test_the_first_rule_that_is_about_a_request_strikes() -> None:
    rules: Rules[str] = Rules()
    rules.add(Rule("puts", "PUT"))
    rules.add(Rule("head", part="_head"))
    rules.add(Rule("any"))
    asked = [("PUT", "_head"), ("GET", "_head"), ("GET", "_log/1")]
    assert [rules.strike(*one) for one in asked] == ["puts", "head", "any"]
    assert rules.struck == {"puts": 1, "head": 1, "any": 1}


def test_rules_are_used_up_one_after_the_other() -> None:
    rules: Rules[str] = Rules()
    rules.add(Rule("first", times=2))
    rules.add(Rule("second", times=1))
    struck = [rules.strike("GET", "key") for _ in range(4)]
    assert struck == ["first", "first", "second", None]


def test_a_rule_for_a_while_is_removed_though_another_is_equal() -> None:
    rules: Rules[str] = Rules()
    rules.add(Rule("same", times=1))
    with rules.during(Rule("same")):
        assert rules.strike("GET", "key") == "same"
    assert rules.strike("GET", "key") is None


def test_chances_come_from_the_seed() -> None:
    def struck(seed: str) -> list[str | None]:
        rules: Rules[str] = Rules(seed)
        rules.add(Rule("x", chance=0.3))
        return [rules.strike("GET", "key") for _ in range(200)]

    assert struck("a") == struck("a") != struck("b")
    assert 30 < struck("a").count("x") < 90


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(), "nothing"),
        (Fault(delay=0.5, status=503), "0.5 s late, says 503"),
        (Fault(lost="after", reset=True), "lost after, by a reset"),
        (Fault(skew=60), "with another Date"),
    ],
)
def test_a_fault_in_words(fault: Fault, words: str) -> None:
    assert str(fault) == words


def test_a_rule_from_json() -> None:
    rule = rule_of('{"kind": "PUT", "lost": "after", "chance": 0.1}')
    assert (rule.kind, rule.chance, rule.what) == ("PUT", 0.1, Fault(lost="after"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not an object"),
        ('{"lots": "after"}', "unknown: lots; known are chance, code, date, delay"),
        ('{"lost": "away"}', "lost is one of before, midway, after"),
    ],
)
def test_a_rule_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule_of(text)
