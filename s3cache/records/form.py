"""Records as bytes.

A record is what ``dumpdata`` writes for one row, a list of one object, with
one more member that ``loaddata`` passes over::

    [{"model": "shop.product", "pk": 7, "fields": {...},
      "s3cache": {"entry": 1204, "sum": "..."}}]

``entry`` is the position that the row was read at: of two records of a row
the one with the larger number is the newer one, and none has the bytes of an
earlier one. ``sum`` is a hash of everything else: it tells what s3cache wrote
from what somebody has edited. (It is no signature.) ``columns`` has what the
table has and the model of whoever wrote it has not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

#: What stands for a record that is gone, where the store cannot delete an
#: object on condition.
EMPTY: Final = b"[]\n"

_OWN: Final = "s3cache"


@dataclass(frozen=True, slots=True)
class Opened:
    """A record that s3cache wrote; ``content`` is None if it is empty."""

    entry: int
    content: Mapping[str, Any] | None


class _Encoder(DjangoJSONEncoder):
    """Django's, without its loss of microseconds."""

    def default(self, o: Any) -> Any:
        if isinstance(o, datetime | time):
            return o.isoformat()
        return super().default(o)


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` as reading it back would give it."""
    encoded = json.dumps(content, cls=_Encoder, ensure_ascii=False)
    plain: dict[str, Any] = json.loads(encoded)
    return plain


def seal_record(
    content: Mapping[str, Any], *, key: str, database: str, entry: int
) -> bytes:
    """The bytes of the record of a row, stored under ``key``.

    ``content`` is plain: "model", "pk", "fields", and perhaps "columns".
    """
    sealed = {name: content[name] for name in ("model", "pk", "fields")}
    own: dict[str, Any] = {"entry": entry}
    if columns := content.get("columns"):
        own["columns"] = columns
    own["sum"] = _sum(content, key, database, entry)
    text = json.dumps([{**sealed, _OWN: own}], ensure_ascii=False, indent=2)
    # SQLite keeps text that is no valid Unicode; JSON has an escape for it.
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps([{**sealed, _OWN: own}], indent=2)}\n".encode()


def open_record(body: bytes, *, key: str, database: str) -> Opened | None:
    """What s3cache wrote under ``key``; None if somebody else wrote it."""
    if body == EMPTY:
        return Opened(0, None)
    try:
        (record,) = json.loads(body)
        own = record.pop(_OWN)
        content = dict(record)
        if "columns" in own:
            content["columns"] = own["columns"]
        entry, told = own["entry"], own["sum"]
        if type(entry) is int and told == _sum(content, key, database, entry):
            return Opened(entry, content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return None


def _sum(content: Mapping[str, Any], key: str, database: str, entry: int) -> str:
    told = json.dumps([database, key, entry, content], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]
