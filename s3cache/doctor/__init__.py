"""Looking a store over: what is wrong with it, what it does, what it costs.

Everything is asked of the store itself and of the bucket's configuration;
nothing of the database is opened, so that it works where that fails.
"""

from __future__ import annotations

from s3cache.doctor.examination import examine
from s3cache.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
