"""What requests and bytes cost: one table, which a project can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s3cache import conf

__all__ = ["Prices", "current"]


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a thousand requests, and for a GB (10^9 bytes) and month.

    The defaults are those of S3 Standard in us-east-1 for the first 50 TB.
    ``source`` says, for people, where they are from and of when they are.
    """

    put: float = 0.005
    list: float = 0.005
    get: float = 0.0004
    delete: float = 0.0
    storage: float = 0.023
    source: str = "https://aws.amazon.com/s3/pricing/, S3 Standard, us-east-1, 2025"

    def of(self, requests: Mapping[str, float]) -> float:
        """What so many requests of each kind (GET, PUT, ...) cost."""
        return (
            requests.get("PUT", 0) * self.put
            + requests.get("LIST", 0) * self.list
            + requests.get("GET", 0) * self.get
            + requests.get("DELETE", 0) * self.delete
        ) / 1000


def current() -> Prices:
    """Those of ``S3CACHE["PRICES"]``."""
    return Prices(**conf.settings().prices)
