"""What a benchmark cannot do without."""

from __future__ import annotations

#: The exit status of a benchmark, or of a part of one, that cannot be run.
IS_MISSING = 3


class Missing(Exception):
    """What is needed is not here; the message says what, and how to get it."""
