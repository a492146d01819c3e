"""What really happened, and whether what was told agrees with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3cache.log.effects import Position
from s3cache.log.entry import Entry, unseal
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD, entry_key, entry_number

from .database import State, apply, run_batch
from .store import Object, Store
from .workload import ACCOUNTS, BALANCE, COUNTERS, Increment, Write
from .world import Violation, World

if TYPE_CHECKING:
    from .host import Host


class Oracle:
    """The log as the store accepted it, and every write that was called.

    An entry counts if its number was above the trim when it was created. What
    lands at or below it is a zombie: somebody slept, and nobody will look.
    """

    def __init__(self, world: World, store: Store, database: str, start: State) -> None:
        self.world = world
        self.store = store
        self.database = database
        self.entries: list[Entry] = []
        self.etags: list[str] = []
        self.origins: list[object] = []
        self.states = [start]
        self.zombies = 0
        self.writes: list[Write] = []
        self.reads = 0
        store.on_created = self._created

    @property
    def newest(self) -> int:
        return len(self.entries)

    def _created(self, key: str, made: Object) -> None:
        number = entry_number(key)
        if number is None:
            return
        head = decode_head(self.store.objects[HEAD].body)
        if number <= head.trimmed:
            self.zombies += 1
            self.world.note("", f"  (a zombie: the log is trimmed to {head.trimmed})")
            return
        blob = b""
        name = _blob_of(made.body, key)
        if name:
            if name not in self.store.objects:
                raise Violation(f"{key} names a body that is not there")
            blob = self.store.objects[name].body
        entry = unseal(made.body, key=key, blob=blob)
        if number != self.newest + 1:
            raise Violation(f"{key} was created after entry {self.newest}")
        previous = self.entries[-1].token if self.entries else ""
        if not entry.follows(self.database, self.newest, previous):
            raise Violation(f"{key} does not continue the entry before it")
        before = self.states[-1]
        state = apply(before, entry.changes)
        write = made.origin
        if isinstance(write, Write):
            changes, results = run_batch(write.batch, before)
            if apply(before, changes) != state:
                raise Violation(f"{key} of {write} was made from another state")
            write.numbers.append(number)
            write.results = results
        self.entries.append(entry)
        self.etags.append(made.etag)
        self.origins.append(made.origin)
        self.states.append(state)

    # What hosts do

    def check_replica(self, host: Host, position: Position, state: State) -> None:
        """A replica at one position is what the log says it is there."""
        number = position.number
        if number > self.newest:
            raise Violation(f"{host} is at {number}, the log ends at {self.newest}")
        token = self.entries[number - 1].token if number else ""
        if position.database != self.database or position.token != token:
            raise Violation(f"{host} applied an entry {number} that does not count")
        if state != self.states[number]:
            raise Violation(f"{host} at {number} differs from the log up to there")

    def check_fresh(self, who: object, number: int, began: int) -> None:
        """A reader that asked sees every commit from before it asked."""
        self.reads += 1
        if number < began:
            raise Violation(
                f"{who} was told that {number} is the newest entry, when "
                f"{began} was there already"
            )

    # What writers are told

    def check_acknowledged(
        self, write: Write, position: Position, results: list[object]
    ) -> None:
        """A write that succeeded is in the log, once, with these results."""
        write.status = "acknowledged"
        if len(write.numbers) > 1:
            raise Violation(f"{write} happened {len(write.numbers)} times")
        if write.numbers:
            if position.number < write.numbers[0]:
                raise Violation(f"{write} returned before this host has it")
            if results != write.results:
                raise Violation(
                    f"{write} was told {results}; in the log it made {write.results}"
                )
            return
        if not write.began <= position.number <= self.newest:
            raise Violation(
                f"{write} was judged by {position.number}, which was not the newest "
                f"({write.began} to {self.newest})"
            )
        changes, expected = run_batch(write.batch, self.states[position.number])
        if changes:
            raise Violation(f"{write} was acknowledged and is not in the log")
        if results != expected:
            raise Violation(f"{write} was told {results} instead of {expected}")

    def check_settled(self, number: int, token: str, happened: bool) -> None:
        """What a host finds out later about a commit of unknown outcome."""
        if (self.entries[number - 1].token == token) != happened:
            raise Violation(f"entry {number} {token} was settled as {happened}")

    # In the end

    def check_end(self) -> None:
        """Everything that was told still holds when all has landed."""
        for write in self.writes:
            count = len(write.numbers)
            if count > 1:
                raise Violation(f"{write} happened {count} times")
            if write.status == "failed" and count:
                raise Violation(
                    f"{write} was reported as failed ({write.told}), "
                    f"and is entry {write.numbers[0]}"
                )
            if write.status == "running":
                raise Violation(f"{write} never ended")
        last = self.states[-1]
        for key in range(1, COUNTERS + 1):
            wanted = sum(
                sum(s == Increment(key) for s in write.batch)
                for write in self.writes
                if write.numbers
            )
            counted = last.tables["counter"].rows[key][1]
            if counted != wanted:
                raise Violation(f"counter {key} is {counted} instead of {wanted}")
        total = sum(row[1] for row in last.tables["account"].rows.values())
        if total != ACCOUNTS * BALANCE:
            raise Violation(f"the accounts hold {total}, not {ACCOUNTS * BALANCE}")
        for number, state in enumerate(self.states):
            values = [row[1] for row in state.tables["name"].rows.values()]
            if len(values) != len(set(values)):
                raise Violation(f"a unique value is there twice after {number}")


def _blob_of(sealed: bytes, key: str) -> str:
    from s3cache.log.entry import blob_of

    return blob_of(sealed, key=key)


__all__ = ["Oracle", "entry_key"]
