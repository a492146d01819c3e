"""The example's own settings, writing to a directory that is removed."""

from __future__ import annotations

import os
import tempfile

_scratch = tempfile.TemporaryDirectory(prefix="s3cache-example-")
os.environ["EXAMPLE_VAR"] = _scratch.name

from example_project.settings import *  # noqa: E402, F403  (after the above)

# What the site does at a login is not what takes the time here.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
