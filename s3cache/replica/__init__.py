"""The replica: a local SQLite file that has applied the log up to a position.

It answers queries, decides what a commit may do, and can be deleted at any
time. ``Replica`` ties the parts together; each has a module of its own.
"""
