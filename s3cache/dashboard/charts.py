"""
Charts as SVG, drawn here: no script is needed to see them.

A chart is made of shapes alone. Its labels are text of the page, so that they
keep their size whatever the width, and its colours are classes, so that a
strict Content-Security-Policy and a dark theme are no matter. Whoever does not
see it has its title, a sentence that describes it, and the table with the same
figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["HEIGHT", "WIDTH", "Chart", "Series", "nice_top"]

WIDTH: Final = 600
HEIGHT: Final = 120

#: Of a line, so that it is not cut off at the top and at the bottom.
_MARGIN: Final = 2.0

#: What is less cannot be told from 0, nor divided by.
_NOTHING: Final = 1e-100

#: The share of its step that a bar is wide.
_BAR: Final = 0.8

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """
    One line, or one part of all bars.

    ``values`` has one value for each step of the chart; None where nothing is
    known. ``colour`` is a number, the class ``s3c-colour-<n>``.
    """

    label: str
    values: Sequence[float | None]
    colour: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """
    One chart; ``name`` is unique on the page and safe as an id.

    ``bars``: the series are parts of bars, one upon the other; else each is a
    line. ``top`` is the value at the upper edge; None: what the values need.
    """

    name: str
    title: str
    series: Sequence[Series]
    text: Format
    first: str
    last: str
    bars: bool = False
    fixed_top: float | None = None
    summary: str = ""

    @cached_property
    def top(self) -> float:
        """The value at the upper edge."""
        return self.fixed_top or nice_top(self._highest())

    @property
    def labels(self) -> tuple[str, str, str]:
        """The values at the upper edge, in the middle and at the lower one."""
        top = self.top
        return self.text(top), self.text(top / 2), self.text(0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known for the whole time."""
        return all(value is None for one in self.series for value in one.values)

    @property
    def paths(self) -> list[tuple[int, str]]:
        """Of each series its colour and the ``d`` of its path."""
        if not self.bars:
            top = self.top
            return [(one.colour, _line(one.values, top)) for one in self.series]
        return self._stacked()

    def describe(self, series: Series) -> str:
        """Return what one series came to, for its legend: the last value."""
        known = [value for value in series.values if value is not None]
        return self.text(known[-1]) if known else ""

    def _highest(self) -> float:
        columns = zip(*(one.values for one in self.series), strict=True)
        add = math.fsum if self.bars else max
        return max(
            [add(known) for one in columns if (known := [v for v in one if v])],
            default=0.0,
        )

    def _stacked(self) -> list[tuple[int, str]]:
        top = self.top
        count = len(self.series[0].values) if self.series else 0
        floors = [0.0] * count
        found = []
        for one in self.series:
            bars = []
            step = WIDTH / max(count, 1)
            for index, value in enumerate(one.values):
                if not value:
                    continue
                low, high = floors[index], floors[index] + value
                floors[index] = high
                x, width = (index + (1 - _BAR) / 2) * step, _BAR * step
                y, bottom = HEIGHT * (1 - high / top), HEIGHT * (1 - low / top)
                bars.append(f"M{x:.1f} {bottom:.1f}V{y:.1f}h{width:.1f}V{bottom:.1f}z")
            found.append((one.colour, "".join(bars)))
        return found


def nice_top(highest: float) -> float:
    """The round number at or above `highest`; 1 if that is next to nothing."""
    if highest < _NOTHING or not math.isfinite(highest):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest))
    return next(
        (step * power for step in _STEPS if step * power >= highest), 10 * power
    )


def _line(values: Sequence[float | None], top: float) -> str:
    """A path through the values, interrupted where there are none."""
    step = WIDTH / max(len(values) - 1, 1)
    parts: list[str] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        share = min(value / top, 1.0)
        x, y = index * step, HEIGHT - _MARGIN - (HEIGHT - 2 * _MARGIN) * share
        if index and values[index - 1] is not None:
            parts.append(f"L{x:.1f} {y:.1f}")
        elif index + 1 < len(values) and values[index + 1] is not None:
            parts.append(f"M{x:.1f} {y:.1f}")
        else:
            # It stands alone: as wide as half a step, to be seen.
            begin = max(x - step / 2, 0.0)
            parts.append(f"M{begin:.1f} {y:.1f}h{step / 2:.1f}")
    return "".join(parts)
