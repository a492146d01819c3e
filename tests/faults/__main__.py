"""``python -m tests.faults``: the soak; see ``tests.faults.soak``."""

from __future__ import annotations

import os
import sys

from tests.faults.disks import in_own_namespace

if __name__ == "__main__":
    in_own_namespace("tests.faults", sys.argv[1:])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import tests.db.preloaded  # noqa: F401  (before anything has models)
    from tests.faults.soak import main

    sys.exit(main())
