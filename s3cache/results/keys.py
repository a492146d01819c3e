"""The keys of results: readable, and safe for any cache."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
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
        params = sorted(params.items())
        plain = _PLAIN.issuperset(type(value) for _name, value in params)
    else:
        plain = _PLAIN.issuperset(map(type, params))
    if not plain:
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
