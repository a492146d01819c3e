"""The keys of results: readable, and safe for any cache."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from s3cache.replica.meta import Version
from s3cache.results.policy import Policy
from s3cache.results.versions import At

__all__ = [
    "NAMESPACE",
    "key_of",
    "label_in_key",
    "part_in_key",
    "prefix_of",
    "readable",
]

NAMESPACE: Final = "s3cache"

#: Changes with what is stored under a key.
_FORMAT: Final = 1

#: So many versions are written out; more of them are folded into one word.
_READABLE = 3

_UNSAFE_IN_PART = re.compile(r"[^\w.,=-]", re.ASCII)

_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)

#: Characters of what a key says of a part.
_LONGEST_PART: Final = 40

#: Those that the project has registered, too, by type and protocol.
_ADAPTERS: Final[Mapping[tuple[type, Any], object]] = sqlite3.adapters

#: Types whose ``repr`` tells all of their values apart.
_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])


def key_of(
    policy: Policy, action: str, at: At, sql: str, params: Any, part: str = ""
) -> str | None:
    """The key of a result, at most 250 characters.

    Namespace, model, action, the part of the table that the result depends
    on, versions and a hash. None for parameters that
    cannot be told apart safely.
    """
    if isinstance(params, Mapping):
        names = sorted(params)
        values = _plain([params[name] for name in names])
        params = values and list(zip(names, values, strict=True))
    else:
        params = _plain(params)
    if params is None:
        return None
    text = f"{_FORMAT}|{policy.key_version!r}|{params!r}|{sql}"
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), key=at.schema, digest_size=16
    ).hexdigest()
    label = label_in_key(policy.label)
    if part:
        action = f"{action}:{part_in_key(part)}"
    begin = prefix_of(policy.namespace)
    return f"{begin}:{label}:{action}:{readable(at.versions)}:{digest}"


def _plain(params: Sequence[Any]) -> Sequence[Any] | None:
    """``params`` as SQLite gets them, None if that cannot be told."""
    if _PLAIN.issuperset(map(type, params)):
        return params
    found = tuple([_bound(value) for value in params])
    return found if _PLAIN.issuperset(map(type, found)) else None


def _bound(value: Any) -> Any:
    """What ``sqlite3`` makes of text and numbers of a class of their own.

    Such as the members of ``TextChoices``, which it takes for the text that
    they are, whatever ``str()`` says of them.
    """
    kind = type(value)
    if hasattr(kind, "__conform__") or (kind, sqlite3.PrepareProtocol) in _ADAPTERS:
        return value  # which may make anything of it
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else value


@lru_cache(maxsize=1024)
def label_in_key(label: str) -> str:
    """The word for a model in keys."""
    return _UNSAFE.sub("_", label)[:60]


def part_in_key(part: str) -> str:
    """The word for a part of a table in keys, of at most 40 characters."""
    word = _UNSAFE_IN_PART.sub("_", part)
    if word == part and len(word) <= _LONGEST_PART:
        return word
    # So that entries of another part are not taken for those of this one.
    digest = hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=4)
    return f"{word[: _LONGEST_PART - 9]}~{digest.hexdigest()}"


def prefix_of(namespace: str) -> str:
    """What all keys of a namespace begin with; "" is that of all others."""
    return f"{NAMESPACE}-{namespace}" if namespace else NAMESPACE


@lru_cache(maxsize=1024)
def readable(versions: tuple[Version, ...]) -> str:
    """``versions`` in one word, which is safe in a key."""
    words = [f"{number}-{_UNSAFE.sub('_', token)}" for number, token in versions]
    if len(words) <= _READABLE:
        return ",".join(words)
    folded = hashlib.blake2b(",".join(words).encode(), digest_size=12).hexdigest()
    return f"{max(versions)[0]}-of-{len(words)}-{folded}"
