"""What really happened, and whether what was told agrees with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from s3cache.log.catalog import open_catalog
from s3cache.log.effects import Position
from s3cache.log.entry import Entry, blob_of, seal_end, unseal
from s3cache.log.head import Head, decode_head, dropped_database
from s3cache.log.keys import HEAD, entry_number

from .database import State, apply, run_batch
from .outbox import check_all_sent, check_chain
from .store import Object, Store
from .workload import ACCOUNTS, BALANCE, COUNTERS, Increment, Write
from .world import Violation, World

if TYPE_CHECKING:
    from .host import Host, Replica
    from .outbox import Outbox


@dataclass(slots=True)
class Log:
    """A log as the store accepted it, and what it makes of the database.

    It goes on from entry ``base``, which is another database's end.
    """

    database: str
    states: list[State]
    entries: list[Entry] = field(default_factory=list)
    origins: list[object] = field(default_factory=list)
    base: int = 0
    base_token: str = ""

    @property
    def newest(self) -> int:
        return self.base + len(self.entries)

    def token(self, number: int) -> str:
        if number == self.base:
            return self.base_token
        return self.entries[number - self.base - 1].token

    def state(self, number: int) -> State:
        return self.states[number - self.base]

    def has(self, position: Position) -> bool:
        """Whether ``position`` is one of this log."""
        return (
            position.database == self.database
            and self.base <= position.number <= self.newest
            and position.token == self.token(position.number)
        )

    def until(self, number: int) -> Log:
        """What was this log when ``number`` was its newest entry."""
        return Log(
            self.database,
            self.states[: number + 1],
            self.entries[:number],
            self.origins[:number],
        )


class Oracle:
    """The true log, and every write that was called.

    An entry counts if its number was above the trim when it was created. What
    lands at or below it is a zombie: somebody slept, and nobody will look.

    A disaster (somebody wipes or restores the bucket under running hosts)
    begins another log; what was only in the old one is lost. From then on
    there are strays: entries of hosts that have not noticed yet, which do not
    continue the log. Where one lies the log is broken, and only a loud
    ``LogDiverged`` will do.

    Where the database is dropped the log is over for good, and nobody may be
    told otherwise, not even who could not know of it. Where another one is
    made in its place there is a new log, and there are no strays in it.
    """

    def __init__(self, world: World, store: Store, database: str, start: State) -> None:
        self.world = world
        self.store = store
        self.log = Log(database, [start])
        self.past: list[Log] = []
        self.disaster_at: float | None = None
        self.copied = False
        self.wiped = False
        self.dropped = False
        #: Whether there is another database in the place of a dropped one.
        self.remade = False
        self.strays: list[int] = []
        self.zombies = 0
        self.writes: list[Write] = []
        self.reads = 0
        self.outboxes: list[Outbox] = []
        store.on_created = self._created

    @property
    def newest(self) -> int:
        return self.log.newest

    @property
    def is_whole(self) -> bool:
        """Whether the log in the bucket is one that can be followed."""
        return not (self.wiped or self.dropped or self.strays)

    def disaster(self, log: Log, *, copied: bool = False, wiped: bool = False) -> None:
        """From now on ``log`` is what the bucket holds."""
        for number in range(self.newest, 0, -1):
            if log.database == self.log.database and number <= log.newest:
                break
            write = self.log.origins[number - self.log.base - 1]
            if isinstance(write, Write):
                write.numbers.remove(number)
                write.lost_in_disaster = True
        self.past.append(self.log)
        self.log = log
        self.disaster_at = self.world.now
        self.copied, self.wiped = copied, wiped

    def drop(self) -> None:
        """From now on somebody drops the database."""
        self.disaster_at = self.world.now
        self.dropped = True

    def head(self) -> Head | None:
        """What ``_head`` is now."""
        found = self.store.objects.get(HEAD)
        if found is None or dropped_database(found.body):
            return None
        return decode_head(found.body)

    def _remade(self, head: Head) -> None:
        """There is a database in the place of the one that was dropped."""
        self.world.note("", f"-- {head.database} is made after {head.trimmed} --")
        if self.remade or not self.dropped:
            raise Violation(f"{head.database} takes the place of one that is in use")
        if any(number > head.trimmed for number in self.strays):
            raise Violation(f"{head.database} begins with entries of {self.strays}")
        for write in self.log.origins:
            if isinstance(write, Write):
                write.numbers.clear()
                write.lost_in_disaster = True
        if head.trimmed <= self.log.newest:
            raise Violation(f"{head.database} begins with entries of the old one")
        found = self.store.objects.get(head.catalog)
        if found is None:
            raise Violation(f"{head.database} begins with {head.catalog!r}, not there")
        catalog = open_catalog(found.body, key=head.catalog)
        self.past.append(self.log)
        start = self.log.states[0]
        self.log = Log(
            head.database, [start], base=head.trimmed, base_token=catalog.token
        )
        self.dropped, self.remade, self.strays = False, True, []
        self.disaster_at = self.world.now

    def _created(self, key: str, made: Object) -> None:
        if key == HEAD:
            head = self.head()
            if head is not None and head.database != self.log.database:
                self._remade(head)
            return
        number = entry_number(key)
        if number is None or made.body == seal_end(""):
            return
        head = self.head()
        if head is not None and number <= head.trimmed:
            self.zombies += 1
            self.world.note("", f"  (a zombie: the log is trimmed to {head.trimmed})")
            return
        log, write = self.log, made.origin
        entry = self._opened(key, made)
        if (
            head is None
            or entry is None
            or not entry.follows(log.database, log.newest, log.token(log.newest))
        ):
            if self.disaster_at is None or self.remade:
                raise Violation(f"{key} does not continue the log at {log.newest}")
            self.world.note("", f"  (a stray: the log is at {log.newest})")
            self.strays.append(number)
            if isinstance(write, Write):
                write.is_stray = True
            return
        before = log.states[-1]
        state = apply(before, entry.changes)
        if isinstance(write, Write):
            changes, results = run_batch(write.batch, before)
            if apply(before, changes) != state:
                raise Violation(f"{key} of {write} was made from another state")
            if write.status != "running" and self._was_taken(number):
                write.resurrected.append(number)
            else:
                write.numbers.append(number)
                write.results = results
        log.entries.append(entry)
        log.origins.append(write)
        log.states.append(state)
        for outbox in self.outboxes:
            check_chain(state, outbox)

    def _was_taken(self, number: int) -> bool:
        """Whether there was an entry of that number before a disaster."""
        return any(number <= log.newest for log in self.past)

    def _opened(self, key: str, made: Object) -> Entry | None:
        """The entry in an object, or None if its blob is not there."""
        blob = b""
        if name := blob_of(made.body, key=key):
            if name not in self.store.objects:
                return None
            blob = self.store.objects[name].body
        return unseal(made.body, key=key, blob=blob)

    # What hosts do

    def check_replica(self, host: Host, replica: Replica) -> None:
        """A replica at one position is what the log says it is there.

        But for the rows that it says it lacks: it has none of those.
        """
        position, state = replica.position, replica.state
        for log in (self.log, *self.past):
            if log.has(position):
                there = log.state(position.number)
                if replica.absent:
                    there = there.without(replica.lacks)
                if state != there:
                    raise Violation(f"{host} differs from the log at {position.number}")
                return
        if position.number in self.strays:
            return
        raise Violation(f"{host} applied {position.number}, which does not count")

    def check_take_over(self, host: Host, diverged: bool, head: Head) -> None:
        """A replica that holds lost commits is called diverged, no other."""
        position = host.replica.position
        lost = position.database != "" and not self.log.has(position)
        if diverged and not lost and not self.copied:
            raise Violation(f"{host} believes that the log diverged")
        if lost and not diverged and head.trimmed < position.number:
            raise Violation(f"{host} would lose commits that exist nowhere else")

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
        self, write: Write, position: Position, results: list[object], unaware: bool
    ) -> None:
        """A write that succeeded is in the log, once, with these results.

        ``unaware``: its host had no chance yet to notice the disaster.
        """
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
        if unaware or write.lost_in_disaster:
            return
        log = self.log
        if self.remade and not log.has(position):
            log = self.past[-1]  # asked when that was in use
        if not write.began <= position.number <= log.newest:
            raise Violation(
                f"{write} was judged by {position.number}, which was not the newest "
                f"({write.began} to {log.newest})"
            )
        changes, expected = run_batch(write.batch, log.state(position.number))
        if changes:
            raise Violation(f"{write} was acknowledged and is not in the log")
        if results != expected:
            raise Violation(f"{write} was told {results} instead of {expected}")

    def check_settled(self, number: int, token: str, happened: bool) -> None:
        """What a host finds out later about a commit of unknown outcome."""
        if self.disaster_at is None and (self.log.token(number) == token) != happened:
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
                    f"{write} was reported as failed ({write.error!r}), "
                    f"and is entry {write.numbers[0]}"
                )
            if write.status == "running":
                raise Violation(f"{write} never ended")
        last = self.log.states[-1]
        for key in range(1, COUNTERS + 1):
            wanted = sum(
                sum(s == Increment(key) for s in write.batch)
                * (bool(write.numbers) + len(write.resurrected))
                for write in self.writes
            )
            counted = last.tables["counter"].rows[key][1]
            if counted != wanted:
                raise Violation(f"counter {key} is {counted} instead of {wanted}")
        total = sum(row[1] for row in last.tables["account"].rows.values())
        if total != ACCOUNTS * BALANCE:
            raise Violation(f"the accounts hold {total}, not {ACCOUNTS * BALANCE}")
        for number, state in enumerate(self.log.states, self.log.base):
            values = [row[1] for row in state.tables["name"].rows.values()]
            if len(values) != len(set(values)):
                raise Violation(f"a unique value is there twice after {number}")
        for outbox in self.outboxes:
            check_all_sent(last, outbox)
