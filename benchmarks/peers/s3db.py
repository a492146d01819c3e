"""s3db.js, the document database over objects for Node.js.

It is used as its documentation advises: a partition for what is counted by
region, its own cache where that is asked for. It has the HTTP client of the
AWS SDK instead of its own, as one of its options says.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

from benchmarks.databases import values
from benchmarks.missing import Missing
from benchmarks.peers.django_peer import (
    BEFORE,
    COUNT_MANY,
    LONGEST,
    MIXED,
    WAREHOUSES,
    many_of,
    rows_of,
)
from benchmarks.peers.figures import Told
from benchmarks.peers.mixed import WORKERS
from benchmarks.peers.settings import BUCKET, Place

#: Ignored by git; `--install` fills it.
FOLDER = Path(__file__).parents[2] / ".cache" / "peers"
NEEDS = {"node": "24", "s3db.js": "21.6.2"}

#: What s3db.js needs for its command line and its own HTTP client, neither of
#: which is used here. Not every registry has them.
NOT_USED = ("cli-args-parser", "recker", "tuiuiu.js")

#: A package in the place of these; ``/lite`` imports the names.
ABSENT = """\
function absent() {
  throw new Error("not installed");
}
export {
  absent as createClient,
  absent as createHttp2MetricsHooks,
  absent as createRedDbClient,
  absent as expandHTTP2Options,
  absent as getGlobalHttp2Metrics,
  absent as Http2Error,
  absent as parseHttp2Error,
};
"""


def install() -> None:
    """Get Node.js and s3db.js from npm."""
    absent = FOLDER / "absent"
    absent.mkdir(parents=True, exist_ok=True)
    (absent / "index.js").write_text(ABSENT)
    _describe(absent, name="absent", version="0.0.0", main="index.js")
    _describe(
        FOLDER,
        dependencies=NEEDS,
        overrides=dict.fromkeys(NOT_USED, "file:absent"),
    )
    subprocess.run(  # noqa: S603 - our own words
        [
            *("npm", "install", "--omit=optional", "--omit=peer"),
            *("--no-audit", "--no-fund"),
        ],
        cwd=FOLDER,
        check=True,
    )


def _describe(folder: Path, **about: object) -> None:
    about |= {"private": True, "type": "module"}
    (folder / "package.json").write_text(json.dumps(about, indent=2))


def measure(place: Place, scale: float, *, cache: bool = False) -> Told:
    """A round; see `benchmarks.peers.django_peer.measure`."""
    node = FOLDER / "node_modules" / ".bin" / "node"
    if not node.exists() or not (FOLDER / "node_modules" / "s3db.js").exists():
        raise Missing("s3db.js and its Node.js: python -m benchmarks.peers --install")
    # A module finds what is installed where it lies itself.
    program = FOLDER / "s3db.mjs"
    text = Path(__file__).with_name("s3db.mjs").read_text()
    program.write_text(text)
    given = {
        "store": place.store,
        "bucket": BUCKET,
        "prefix": secrets.token_hex(4),
        "cache": cache,
        "workers": WORKERS,
        "longest": LONGEST * scale,
        "before": BEFORE * scale,
        "mixed": MIXED * scale,
        "scale": scale,
        "items": [_item() for _ in range(rows_of(scale))],
        "new": [_item() for _ in range(1000)],
        "many": many_of(scale),
        "count many": COUNT_MANY,
        "warehouses": WAREHOUSES,
    }
    done = subprocess.run(  # noqa: S603 - our own words
        [node, program],
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told: Told = json.loads(done.stdout.splitlines()[-1])
    return told


def _item() -> dict[str, object]:
    return {
        name: value if isinstance(value, int | str) else str(value)
        for name, value in values().items()
    }
