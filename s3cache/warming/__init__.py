"""Results are there before somebody asks for them.

registry    named queries, which projects declare
planning    what there is to warm of models and queries
traffic     what was read at this hour on earlier days
steps       makes reads one after the other, or by several threads
named       does both for models and queries, whatever fails
background  the same in a thread, after changes
starting    what a process begins with
bulk        many changes at once
tasks       for Django's task framework
"""

from __future__ import annotations

from s3cache.warming.background import background
from s3cache.warming.bulk import Batch, NotTried, Outcome, bulk
from s3cache.warming.registry import queries, query
from s3cache.warming.starting import start
from s3cache.warming.steps import Report

__all__ = [
    "Batch",
    "NotTried",
    "Outcome",
    "Report",
    "background",
    "bulk",
    "queries",
    "query",
    "start",
]
