"""When an entry was made, and until when it serves."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Times"]


class Times(NamedTuple):
    """Epoch seconds; infinity: never."""

    created: float
    expires: float = math.inf
    """The hard expiry: nothing of the entry is served from here on."""
    soft: float = math.inf
    """The soft expiry: from here on only ``get_or_set`` may serve it."""
    cost: float = 0.0
    """Seconds that computing the value took."""

    @property
    def fresh_until(self) -> float:
        """The sooner of both expiries."""
        return min(self.expires, self.soft)
