"""
The signals of s3cache.

``rows_changed``
    A commit changed rows of a table: by ``save()``, ``delete()``, bulk
    operations or raw SQL, of this host or any other. Sent once per table and
    commit, when the replica has the commit, in the thread that applied it,
    outside of any transaction: receivers see the new rows. Hosts that were
    down or far behind get what they missed when they catch up; a host whose
    replica is rebuilt from packs does not.

    sender
        The model class, or None if no installed model has the table (the
        table of a ``ManyToManyField`` has one: its ``through``).
    using
        The alias of the database.
    table
        The table's name.
    pks
        A tuple of the primary keys of the rows that were inserted, changed
        or deleted, as the database holds them (a UUID as 32 hexadecimal
        digits); None if there were more than 1,000: take it as all.
    position
        The log position of the commit, an int that only grows.
    local
        True if this host made the commit, False if another did.

    An error in a receiver is logged and goes no further: the commit has
    happened, and other receivers want to know.

Django's own ``post_save``, ``post_delete`` and ``m2m_changed`` are sent as on
any database: by the host that writes, before the commit.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = ["rows_changed"]

rows_changed = Signal()
