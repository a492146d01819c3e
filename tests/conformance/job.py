"""What the parent tells the process that runs one app's tests."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

#: Names the file with the job, in the environment of the child process.
VARIABLE = "S3CACHE_CONFORMANCE_JOB"

#: In mode 3 each process runs about so many tests. It rebuilds the replica
#: again and again, from a log that grows with each test.
PART_SIZE = 20

MODES = {
    1: "as they are",
    2: "every commit real",
    3: "every commit real, the replica lost before one SELECT in twenty",
}


@dataclass(frozen=True)
class Job:
    """One app on one engine in one mode."""

    app: str
    """Or several, with spaces between."""
    engine: str
    """Dotted path of a subclass of ``engines.Engine``."""
    mode: int
    seed: int
    folder: str
    """Where databases and stores of this job live; removed afterwards."""
    without: tuple[str, ...] = field(default=())
    """Tests to leave out: they ended the process, or measure time."""
    part: int = 0
    """Which part of the app's tests, where they are run in parts."""
    part_size: int = 0
    """About how many tests a part has; 0: there is one part."""
    timeout: float = 3600.0
    """Seconds after which the whole process counts as hung."""
    test_timeout: float = 120.0
    """Seconds after which a test counts as hung."""

    @property
    def events(self) -> Path:
        """The file to which the child writes what happens, line by line."""
        return Path(self.folder) / "events.jsonl"

    def save(self) -> Path:
        path = Path(self.folder) / "job.json"
        path.write_text(json.dumps(dataclasses.asdict(self)))
        return path

    @classmethod
    def current(cls) -> Job:
        """The job of this child process."""
        content = json.loads(Path(os.environ[VARIABLE]).read_text())
        content["without"] = tuple(content["without"])
        return cls(**content)
