"""What the reader has chosen: whose numbers, of when, of which database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from s3cache import conf
from s3cache.metrics.figures import Scope

__all__ = ["Choice", "Period", "Selection"]

Period = Literal["hour", "day", "month"]

SCOPES: Final[dict[Scope, str | Promise]] = {
    "fleet": _("All hosts"),
    "host": _("This host"),
    "process": _("This process"),
}
PERIODS: Final[dict[Period, str | Promise]] = {
    "hour": _("Hour"),
    "day": _("Day"),
    "month": _("Month"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several, as a link; `query` leads to it."""

    label: str | Promise
    query: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Whose numbers, of when, of which database (None: of all).

    Read from an address; what makes no sense there is as if it were missing.
    """

    scope: Scope = "fleet"
    period: Period = "hour"
    database: str | None = None

    @classmethod
    def of(cls, query: QueryDict) -> Selection:
        """Return what the query of an address asks for."""
        scope, period = query.get("scope"), query.get("period")
        database = query.get("database")
        return cls(
            scope if scope in SCOPES else "fleet",
            period if period in PERIODS else "hour",
            database if database in conf.counted_databases() else None,
        )

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """What is not as it is without a choice: name and value."""
        usual = Selection()
        return [
            (name, value)
            for name in ("scope", "period", "database")
            if (value := getattr(self, name)) != getattr(usual, name)
        ]

    @property
    def query(self) -> str:
        """What leads to this selection: the query of an address, with "?"."""
        return f"?{urlencode(self.chosen)}"

    @property
    def scopes(self) -> list[Choice]:
        """Whose numbers there are."""
        return [
            Choice(label, replace(self, scope=scope).query, scope == self.scope)
            for scope, label in SCOPES.items()
        ]

    @property
    def periods(self) -> list[Choice]:
        """Of which times."""
        return [
            Choice(label, replace(self, period=period).query, period == self.period)
            for period, label in PERIODS.items()
        ]

    @property
    def long_periods(self) -> list[Choice]:
        """Those of figures by the hour."""
        return self.periods[1:]

    @property
    def databases(self) -> list[Choice]:
        """The databases, if there are several."""
        return list(self._databases()) if len(conf.counted_databases()) > 1 else []

    def _databases(self) -> Iterator[Choice]:
        yield Choice(
            _("All databases"),
            replace(self, database=None).query,
            self.database is None,
        )
        for alias in conf.counted_databases():
            yield Choice(
                alias, replace(self, database=alias).query, alias == self.database
            )
