"""What the processes of these tests have loaded when they start.

They are forked from a server that has imported this and does nothing else,
so each takes milliseconds and not a second; none shares anything with another
or with the process that runs the tests.
"""

from __future__ import annotations

import django

django.setup()

import tests.conftest  # noqa: E402  (nobody's credentials leak in)
import tests.db.hosts  # noqa: E402, F401
from tests.s3_server import _session  # noqa: E402

# What takes the time is reading the description of S3. A client that is never
# used connects to nothing.
_session("test", "test").client("s3", region_name="us-east-1")
