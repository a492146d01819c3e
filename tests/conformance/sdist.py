"""The source distribution of the Django that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

#: Kept between runs, and ignored by git.
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "conformance"


class Unavailable(Exception):
    """The source distribution is not in the cache and could not be fetched."""


def tests_folder(version: str = "") -> Path:
    """The folder ``tests`` of Django ``version``, fetched at the first call.

    Without ``version``, that of the installed Django. Safe to call from
    several processes at once: the folder appears whole or not at all. Raises
    ``Unavailable`` with pip's own words when there is no network.
    """
    version = version or django.get_version()
    unpacked = CACHE / f"django-{version}"
    if not unpacked.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _unpack(_archive(version), Path(work))
            (source,) = Path(work).iterdir()
            try:
                source.rename(unpacked)
            except OSError:
                if not unpacked.exists():
                    raise
    return unpacked / "tests"


def _archive(version: str) -> Path:
    kept = CACHE / f"django-{version}.tar.gz"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _download(version, Path(work))
            # Releases before 5.0 spelt it "Django".
            (fetched,) = Path(work).glob("[Dd]jango-*.tar.gz")
            fetched.replace(kept)
    return kept


def _download(version: str, folder: Path) -> None:
    # Isolated, since the build backend that pip wants for the metadata is
    # newer than the setuptools of many environments.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-binary", "django"]
    command += ["--dest", str(folder), f"django=={version}"]
    done = subprocess.run(  # noqa: S603 - our own words
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        check=False,
    )
    if done.returncode:
        raise Unavailable(
            f"pip could not fetch the source of Django {version}:\n{done.stderr}"
        )


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError):
        # Cut short by a full disk or a kill: fetch it again the next time.
        archive.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        raise
