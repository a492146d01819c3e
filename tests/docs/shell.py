"""Types blocks into one shell of a project: JSON on the standard input."""

from __future__ import annotations

import doctest
import json
import sys
import traceback
import warnings
from typing import Any

import django


def main() -> int:
    """The exit status: 1 if a block did not do what its page says."""
    steps = json.load(sys.stdin)
    warnings.simplefilter("error")
    django.setup()
    names: dict[str, Any] = {"__name__": "__main__"}
    for step in steps:
        type_one = _compare if step["kind"] == "pycon" else _execute
        if not type_one(step["text"], step["page"], step["line"], names):
            return 1
    return 0


def _execute(text: str, page: str, line: int, names: dict[str, Any]) -> bool:
    # The empty lines make a traceback point to the line of the page.
    source = "\n" * (line - 1) + text
    try:
        exec(compile(source, page, "exec", dont_inherit=True), names)  # noqa: S102
    except Exception:
        traceback.print_exc()
        return False
    return True


def _compare(text: str, page: str, line: int, names: dict[str, Any]) -> bool:
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, line - 1)
    test.globs = names
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    return runner.run(test, clear_globs=False).failed == 0


if __name__ == "__main__":
    sys.exit(main())
