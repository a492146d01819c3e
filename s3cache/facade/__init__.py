"""``Model.objects.cache``: the results of one model, by hand.

facade      `Facade`, what people call; made of base, warms and entries
reads       what of which rows: a read before it is made
warmer      makes a read, and has its result in the cache
removing    finds and removes entries by what their keys begin with
keys        keys of callers' own entries
statistics  what is said of all that
"""

from __future__ import annotations

from s3cache.facade.entries import clear_everything
from s3cache.facade.facade import Facade, cache_of
from s3cache.facade.keys import KeyBuilder
from s3cache.facade.reads import ACTIONS, PAGE_SIZE, Read
from s3cache.facade.warms import SAMPLE_SIZE

__all__ = [
    "ACTIONS",
    "PAGE_SIZE",
    "SAMPLE_SIZE",
    "Facade",
    "KeyBuilder",
    "Read",
    "cache_of",
    "clear_everything",
]
