"""What an answer of the store proves, and what it does not.

The log is trimmed: entries that packs cover are deleted a day after they
were written. So a host that slept can ask for entry n+1, be told that there
is none, and be wrong: it was there, and is gone. It can even create n+1 a
second time, where nobody will ever look. The rules here are what keeps such
a host from believing either.
"""

from __future__ import annotations

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.log.effects import Get, Position, Steps
from s3cache.log.entry import Entry, blob_of, unseal
from s3cache.log.head import Head, decode_head
from s3cache.log.keys import HEAD, entry_key
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: Seconds between the last proof and an answer (both by the store's clock)
#: up to which the answer counts without another look at ``_head``. Entries
#: stay for a day, so this leaves 23 hours to spare.
BELIEVED_FOR = 3600.0


def is_unclear(answer: Answer) -> bool:
    """Whether a request may or may not have had its effect.

    So it is with ``Answer.unclear``; with 429, which a proxy may say; and
    with 409, which says that another request for the key is under way: it
    may be a copy of ours.
    """
    return answer.unclear or answer.status in (409, 429)


def read_head() -> Steps[Head]:
    """``_head``; raises ``LogDiverged`` if it is gone."""
    answer: Answer = yield Get(HEAD)
    if answer.status == 404:
        raise LogDiverged(
            f"{HEAD} is missing: the bucket was emptied, or the location is "
            f"another one. Restore it; this host's replica still has its rows. "
            f"(Where an empty database is wanted, delete the replica first.)"
        )
    if answer.status != 200:
        raise failure(answer, f"read {HEAD}")
    return decode_head(answer.body)


def believable(position: Position, answer: Answer) -> Steps[bool]:
    """Whether what ``answer`` says of the entries after ``position`` counts.

    An answer long after the position was last proved counts only once
    ``_head``, read after it, says that the trim has not reached the next
    entry. ``_head`` read before the answer would not do: the trim may pass
    between the two.
    """
    if is_recent(position, answer):
        return True
    head = yield from read_head()
    return is_untrimmed(position, head)


def is_recent(position: Position, answer: Answer) -> bool:
    """Whether no entry after ``position`` can be old enough for the trim."""
    return (
        answer.date is not None
        and abs(answer.date - position.proved_at) <= BELIEVED_FOR
    )


def is_untrimmed(position: Position, head: Head) -> bool:
    """Whether the log still has every entry after ``position``."""
    return head.database == position.database and head.trimmed <= position.number


def open_entry(
    answer: Answer, number: int, signing_keys: tuple[bytes, ...]
) -> Steps[Entry | None]:
    """The entry in ``answer``, with its blob read if it has one.

    None if it was trimmed meanwhile, and its blob with it.
    """
    key = entry_key(number)
    blob = b""
    if name := blob_of(answer.body, key=key):
        found: Answer = yield Get(name)
        if found.status == 404:
            head = yield from read_head()
            if head.trimmed >= number:
                return None
            raise EntryFormatError(f"{name}, the body of {key}, is missing.")
        if found.status != 200:
            raise failure(found, f"read {name}")
        blob = found.body
    return unseal(answer.body, key=key, signing_keys=signing_keys, blob=blob)
