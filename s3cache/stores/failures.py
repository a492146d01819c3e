"""The exception for what a store did not do."""

from __future__ import annotations

from typing import Final

from s3cache.exceptions import StoreError, StoreRefused, StoreUnavailable
from s3cache.stores.base import Answer

#: Had no effect, and may have it the next time.
_TRY_AGAIN: Final = frozenset({409, 429})

_ADVICE: Final = {
    403: (
        "The credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on the "
        "location and s3:ListBucket on the bucket (without it a missing object looks "
        "like a forbidden one), and this host's clock must be right"
    ),
    410: "Create the bucket, or correct its name or the endpoint",
    413: "Make room on the disk",
}


def failure(answer: Answer, doing: str, *, store: str = "The store") -> StoreError:
    """The exception for an answer that its caller could not use.

    ``doing`` completes "could not ..."; ``store`` is the store's name. The
    message ends in what to do, where that is known. ``StoreUnavailable`` if
    it may work the next time, else ``StoreRefused``.
    """
    said = f"HTTP {answer.status}" if answer.status else "no answer"
    if answer.message:
        said += f" ({answer.message})"
    text = f"{store}: could not {doing}: {said}."
    if answer.unclear or answer.status in _TRY_AGAIN:
        return StoreUnavailable(text)
    advice = _ADVICE.get(answer.status, "")
    return StoreRefused(f"{text} {advice}." if advice else text)
