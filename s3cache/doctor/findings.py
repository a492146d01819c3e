"""What an examination says."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Level(enum.IntEnum):
    """How bad a finding is, for people and for exit codes."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    ``about`` is a stable word for programs; ``advice`` says what to do, and is
    empty where there is nothing to do. ``figures`` are what was measured, by
    name; their names end in the unit.
    """

    about: str
    level: Level
    message: str
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
