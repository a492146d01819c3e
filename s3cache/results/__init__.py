"""Results of statements, kept in Django's cache framework.

A result is kept under a key with the versions of the tables that it was read
from. A write moves the version, and so the key: nothing has to be deleted,
and no order of events puts a stale result under a key that is in use.

    statements   answers SELECTs from the cache, or from the replica
    plans        what a statement depends on, and whether it may be kept
    policy       what the settings and the models say about it
    versions     the versions of a replica's tables, in memory
    keys, codec  what is put into the cache, and under which key
    flights      one caller computes, the others wait
    counters     hits, misses and the rest, by model and action
    watching     each read, told to whoever watches a request
"""
