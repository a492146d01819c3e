"""Each rule of the protocol as a switch: what would do without it.

A mutant replaces one small function of ``s3cache.log``, or one duty of who
performs its effects, by what somebody might write who does not know the rule.
``RULES`` says which rule it breaks; ``test_mutants.py`` pins a seed that
notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import ANY, patch

import msgspec

from s3cache.exceptions import CommitOutcomeUnknown, StoreUnavailable
from s3cache.keeper import beginning, ending, plan, rounds
from s3cache.keeper import effects as k
from s3cache.keeper.ending import Ended
from s3cache.log import catch_up, cold_start, commit, outbox, patience, proof
from s3cache.log import effects as e
from s3cache.log.commit import Outcome, Sent
from s3cache.log.entry import Entry, unseal
from s3cache.log.keys import BLOBS, HEAD, LOG, entry_key
from s3cache.log.outbox import Mark
from s3cache.log.proof import is_recent, is_untrimmed, read_head
from s3cache.stores.failures import failure

from . import host
from .database import apply
from .host import Run, Task
from .outbox import SendBatch
from .packs import build_pack, load_parts, parts_of, split
from .scenario import Simulation
from .store import DAY, Request

MODULES = (
    *(proof, patience, cold_start, catch_up, commit),
    *(plan, rounds, ending, beginning),
)

Mutation = Callable[[ExitStack], None]

RULES: dict[str, str] = {}
_MUTATIONS: dict[str, Mutation] = {}


def breaks(rule: str) -> Callable[[Mutation], Mutation]:
    """Register a mutant under its name, with the rule that it breaks."""

    def register(mutation: Mutation) -> Mutation:
        name = mutation.__name__
        RULES[name] = rule
        _MUTATIONS[name] = mutation
        return mutation

    return register


@contextmanager
def mutant(name: str) -> Iterator[None]:
    """Play with one rule switched off."""
    with ExitStack() as stack:
        _MUTATIONS[name](stack)
        yield


def swap(stack: ExitStack, **replacements: Any) -> None:
    """Put functions in the place of the protocol's, wherever it uses them."""
    for name, new in replacements.items():
        homes = [module for module in MODULES if hasattr(module, name)]
        if not homes:
            raise LookupError(f"no protocol has {name}")
        for module in homes:
            stack.enter_context(patch.object(module, name, new))


def perform(stack: ExitStack, **replacements: Any) -> None:
    """Have effects performed otherwise."""
    for name, new in replacements.items():
        stack.enter_context(patch.object(Run, f"_{name}", new))


# 4.2: the commit


@breaks("4.2: only the token tells whether an entry is ours")
def ours_by_content(stack):
    def is_ours(entry, answer, options):
        found = unseal(answer.body, key=entry_key(entry.number))
        return found.changes == entry.changes

    swap(stack, is_ours=is_ours)


@breaks("4.2: after a 412 the entry is read, and its token compared")
def lost_by_412(stack):
    def whose(entry, position, options):
        answer = yield e.Get(entry_key(entry.number))
        if answer.status != 200:
            raise failure(answer, "read")
        return Outcome.LOST, answer

    swap(stack, whose=whose)


@breaks("4.2: the token is compared even if a reader here was faster")
def lost_to_own_reader(stack):
    original = commit.whose

    def whose(entry, position, options):
        here = yield e.Where()
        if here.number >= entry.number:
            return Outcome.LOST, e.Answer(200)
        return (yield from original(entry, position, options))

    swap(stack, whose=whose)


def _thawed(stack: ExitStack) -> None:
    original = commit.go_on

    def send(entry, body, deadline):
        sent_at = yield e.Now()
        answer = yield e.Create(entry_key(entry.number), body)
        if proof.is_unclear(answer):
            yield e.Sleep(0.05)
            answer = e.Answer(0)
        elif answer.status not in (200, 412):
            raise failure(answer, "create")
        return Sent(answer, sent_at, 0.1)

    def judge(entry, position, sent, options):
        if sent.answer.status == 0:
            return Outcome.LOST, sent.answer
        return (yield from judge_sent(entry, position, sent, options))

    def go_on(position, outcome, answer, options):
        if answer.status:
            yield from original(position, outcome, answer, options)

    judge_sent = commit.judge
    swap(stack, send=send, judge=judge, go_on=go_on)


@breaks("4.2: after a timeout the same bytes are sent again")
def thawed_body(stack):
    _thawed(stack)


@breaks("4.2: a new body has a new token")
def token_of_the_batch(stack):
    _thawed(stack)
    perform(stack, token=lambda run, task, effect: f"w{task.write.serial}")


@breaks("4.2: after a timeout a 404 proves nothing")
def failed_by_404(stack):
    original = commit.send

    def send(entry, body, deadline):
        steps = original(entry, body, deadline)
        effect = next(steps)
        while True:
            result = yield effect
            unclear = isinstance(effect, e.Create) and proof.is_unclear(result)
            if unclear:
                answer = yield e.Get(entry_key(entry.number))
                if answer.status == 404:
                    raise failure(result, "create")
            try:
                effect = steps.send(result)
            except StopIteration as stop:
                return stop.value

    swap(stack, send=send)


@breaks("4.2: 409 may be a copy of our own request")
def conflict_is_failure(stack):
    original = proof.is_unclear
    swap(stack, is_unclear=lambda answer: answer.status != 409 and original(answer))


@breaks("4.2: a 5xx is like a timeout")
def error_is_failure(stack):
    original = proof.is_unclear
    swap(stack, is_unclear=lambda answer: answer.status < 500 and original(answer))


@breaks("4.2: what was unclear once stays unclear, also after a 403")
def refused_is_failure(stack):
    original = commit.send

    def send(entry, body, deadline):
        steps = original(entry, body, deadline)
        effect = next(steps)
        while True:
            result = yield effect
            if isinstance(effect, e.Create) and result.status == 403:
                raise failure(result, "create")
            try:
                effect = steps.send(result)
            except StopIteration as stop:
                return stop.value

    swap(stack, send=send)


@breaks("4.2: what the store does not tell in time is unknown, not failed")
def unknown_is_failure(stack):
    def unknown(entry, error):
        yield e.KeepPending(entry.number, entry.token)
        return StoreUnavailable(str(error))

    swap(stack, unknown=unknown)


@breaks("4.2: once a request may have had its effect, no error means failure")
def failed_by_a_question(stack):
    original = commit.create

    def create(entry, position, options, deadline):
        try:
            return (yield from original(entry, position, options, deadline))
        except CommitOutcomeUnknown as error:
            raise (error.__cause__ or error) from None

    swap(stack, create=create)


@breaks("4.2: a commit that cannot be applied here has still happened")
def failed_by_apply(stack):
    def apply_own(entry, answer, options):
        return (yield e.Apply(entry, answer.etag, catch_up.created_at(answer), True))

    swap(stack, apply_own=apply_own)


@breaks("4.2: the batch is run again on the newer state")
def not_run_again(stack):
    original = Run._stage

    def stage(run, task, effect):
        first = getattr(task, "first", None)
        staged = original(run, task, effect)
        if first is None:
            task.first = first = staged, task.results
        earlier, task.results = first
        return replace(earlier, position=staged.position)

    perform(stack, stage=stage)


@breaks("4.1: a batch that writes nothing asks whether its state is the newest")
def empty_unproved(stack):
    def is_newest(position, options):
        yield e.Now()
        return True

    swap(stack, is_newest=is_newest)


@breaks("4.2: after a win among others, a host lets them have a turn")
def no_turns(stack):
    def let_others_go_first():
        yield e.Now()

    swap(stack, let_others_go_first=let_others_go_first)


@breaks("4.2: who applies the entry settles an unknown outcome by its token")
def settled_by_number(stack):
    stack.enter_context(patch.object(Run, "settles", lambda self, entry, token: True))


@breaks("4.2: applying an entry that is applied already does nothing")
def applied_twice(stack):
    def apply_again(run, task, effect):
        host, entry = task.host, effect.entry
        replica = task.building or host.replica
        replica.state = apply(replica.state, entry.changes)
        replica.position = e.Position(
            entry.database, entry.number, entry.token, effect.etag, effect.modified
        )
        if replica is host.replica:
            host.changed()
        return replica.position

    perform(stack, apply=apply_again)


# 5.3: what an answer proves


@breaks("5.3: an answer long after the last proof needs a look at _head")
def always_believed(stack):
    def believable(position, answer):
        yield e.Now()
        return True

    swap(stack, believable=believable)


@breaks("5.3: _head is read after the answer")
def head_before_answer(stack):
    heads = {}

    def ask_next(position):
        answer = yield e.Get(entry_key(position.number + 1))
        if answer.status not in (200, 404):
            raise failure(answer, "asking")
        return answer

    def first_the_head(steps):
        head = yield from read_head()
        answer = yield from steps
        heads[id(answer)] = answer, head
        return answer

    def believable(position, answer):
        if is_recent(position, answer):
            return True
        _answer, head = heads.get(id(answer)) or (answer, (yield from read_head()))
        return is_untrimmed(position, head)

    list_log = catch_up.list_log
    swap(
        stack,
        ask_next=lambda position: first_the_head(ask_next(position)),
        list_log=lambda after: first_the_head(list_log(after)),
        believable=believable,
    )


@breaks("5.3: a 200 for what the trim has reached is void")
def void_is_won(stack):
    def counts(position, answer):
        yield e.Now()
        return Outcome.WON

    swap(stack, counts=counts)


@breaks("5.3: an entry that the trim has reached says nothing of who won")
def zombie_believed(stack):
    def whose(entry, position, options):
        answer = yield e.Get(entry_key(entry.number))
        if answer.status != 200:
            raise failure(answer, "read")
        if not commit.is_ours(entry, answer, options):
            return Outcome.LOST, answer
        return Outcome.WON, answer

    swap(stack, whose=whose)


@breaks("5.3: void after an unclear attempt a day ago: that one may have counted")
def void_for_certain(stack):
    def void_or_unknown(first_sent_at):
        yield e.Now()
        return Outcome.VOID

    swap(stack, void_or_unknown=void_or_unknown)


@breaks("5.3: an entry proves the time when it was created, not when it was read")
def proved_by_reading(stack):
    swap(stack, created_at=lambda answer: answer.date or 0.0)


@breaks("5.3: an answer without a Date proves nothing by itself")
def dateless_believed(stack):
    swap(
        stack,
        is_recent=lambda position, answer: (
            answer.date is None or is_recent(position, answer)
        ),
    )


@breaks("5.3: a new replica takes only the objects that the LIST named")
def any_object_of_that_name(stack):
    original = catch_up.apply_listed

    def apply_listed(listed, *rest):
        return original(dict.fromkeys(listed, ANY), *rest)

    swap(stack, apply_listed=apply_listed)


@breaks("5.3: a new replica reads _head again after the LIST of its tail")
def tail_believed(stack):
    def is_complete(start, page):
        yield e.Now()
        return True

    swap(stack, is_complete=is_complete)


@breaks("5.6: a new replica never puts a host back")
def taken_over_blindly(stack):
    stack.enter_context(patch.object(e.Position, "is_at", lambda self, other: True))


@breaks("5.3: the log is compared with the replica every ten minutes")
def never_compared(stack):
    original = catch_up.compare

    def compare(signing_keys):
        here = yield e.Where()
        if not here.database:
            return (yield from original(signing_keys))
        return None

    swap(stack, compare=compare)


@breaks("5.3: all entries since the last comparison have to be there")
def compared_newest_only(stack):
    def compare(signing_keys):
        here = yield e.Where()
        if not here.database:
            return (yield from catch_up.rebuild(here, signing_keys))
        now, state = (yield e.Now()), (yield e.Recall())
        if 0 <= now - state.checked_at < catch_up.CHECK_EVERY:
            return None
        first = max(here.number, 1)
        listed, _page = yield from catch_up.list_entries(first, first)
        if listed.get(here.number) != here.etag:
            head = yield from read_head()
            if head.trimmed != here.number:
                return (yield from catch_up.rebuild(here, signing_keys))
        yield e.Remember(checked_at=now)
        return None

    swap(stack, compare=compare)


@breaks("5.3: a replica of a log that is lost is called that, and kept")
def lost_silently(stack):
    original = catch_up.why_not_ours

    def why_not_ours(position, head):
        reason, _diverged = yield from original(position, head)
        return reason, False

    swap(stack, why_not_ours=why_not_ours)


@breaks("3: an entry is applied only after the one whose token it names")
def chain_ignored(stack):
    def follows(self, database, number, token):
        return self.number == number + 1

    stack.enter_context(patch.object(Entry, "follows", follows))


# 5.3 and 8: the keeper


@breaks("5.3: the keeper packs only a replica of this very log")
def packs_of_another_log(stack):
    swap(stack, is_of_this_log=lambda contents, head, log: True)


@breaks("5.3: the keeper trims only what is a day old")
def trimmed_young(stack):
    def may_go(one, date, options):
        return date is not None and date - one.modified >= DAY / 100

    swap(stack, may_go=may_go)


@breaks("5.3: the keeper trims only what is packed")
def trimmed_unpacked(stack):
    original = rounds.trim_to

    def trim_to(this, packed=None):
        return original(this, (this.catalog.number if this.catalog else 0) + 1)

    swap(stack, trim_to=trim_to)


@breaks("5.3: the keeper moves _head before it deletes")
def deleted_first(stack):
    original = rounds.replace_head

    def replace_head(this, **changes):
        if trimmed := changes.get("trimmed"):
            entries = this.log.entries.items()
            doomed = [one.key for number, one in entries if number <= trimmed]
            if doomed:
                yield k.Delete(doomed)
        yield from original(this, **changes)

    swap(stack, replace_head=replace_head)


@breaks("3: a blob goes when its number is trimmed, not by its age")
def blobs_by_age(stack):
    original = rounds.delete_trimmed

    def delete_trimmed(this):
        yield from original(this)
        blobs = yield from rounds.list_all(BLOBS)
        doomed = [
            one.key
            for one in blobs.objects
            if rounds.may_go(one, blobs.date, this.options)
        ]
        yield from rounds.delete(this, doomed)

    swap(stack, delete_trimmed=delete_trimmed)


@breaks("5.6: a pack stays only as long as no entry touches its rows")
def packs_of_old_rows(stack):
    swap(stack, is_changed=lambda segment, touched: False)


@breaks("5.6: all packs of a catalog are of one state, that of its entry")
def packs_of_several_states(stack):
    def build(run, task, effect):
        return build_pack(task.host.replica.state, effect.segments, effect.limit)

    perform(stack, build=build)


@breaks("8: a keeper replaces only the _head that it has read")
def head_replaced_blindly(stack):
    def replace_blindly(run, task, effect):
        def reply(answer):
            found = run.store.objects[effect.key]
            request = Request("REPLACE", effect.key, effect.body, found.etag)
            run.network.send(task, request, task.host.latency, task.answer)

        return run._send(task, Request("GET", effect.key), reply)

    perform(stack, replace=replace_blindly)


@breaks("8: who has not replaced _head since deletes nothing that others may use")
def tidied_without_the_lease(stack):
    def replace_head(this, **changes):
        if changes.get("keeper"):
            return  # as if it had the lease
        yield from original(this, **changes)

    original = rounds.replace_head
    swap(stack, replace_head=replace_head)


@breaks("5.3: packs are read back before _head leads to them")
def not_read_back(stack):
    def store(key, body):
        answer = yield e.Create(key, body)
        return answer.etag

    swap(stack, store=store)


__all__ = ["RULES", "Task", "mutant"]


# 5.6: what a replica lacks


@breaks("5.6: a pack says nothing of rows that entries have changed since")
def loaded_over(stack):
    def load_all(state, body, parts, touched):
        return load_parts(state, body, parts, ())

    stack.enter_context(patch.object(host, "load_parts", load_all))


@breaks("5.6: what is noted of an entry is noted in the transaction that applies it")
def untouched(stack):
    stack.enter_context(patch.object(host, "keys_in", lambda changes: frozenset()))


@breaks("5.6: a change of the schema is applied to whole tables")
def altered_in_part(stack):
    stack.enter_context(
        patch.object(Run, "needed_for", lambda self, replica, entry: [])
    )


@breaks("5.6: packs that are newer than the replica wait until it has caught up")
def repacked_ahead(stack):
    stack.enter_context(
        patch.object(Run, "may_repack", lambda self, replica, catalog: True)
    )


@breaks("5.6: packs of a newer catalog bring the rows that are lacking, and no others")
def repacked_whole(stack):
    def all_of(old, catalog):
        return parts_of(catalog)

    stack.enter_context(patch.object(host, "cut", all_of))


@breaks("5.6: a replica that lacks nothing never lacks anything again")
def lacking_again(stack):
    original = Run._start_over

    def start_over(run, task, effect):
        with patch.object(Run, "may_lack", lambda self, replica: True):
            return original(run, task, effect)

    perform(stack, start_over=start_over)


@breaks("5.6: of a pack that is loaded in part the replica lacks the rest")
def rest_forgotten(stack):
    def first_of(part, body):
        return split(part, body)[:1]

    stack.enter_context(patch.object(host, "split", first_of))


@breaks("5.6: a keeper packs what is whole")
def packed_in_part(stack):
    stack.enter_context(
        patch.object(Simulation, "packs_whole", lambda self, host: False)
    )


# The end of a log


@breaks("the end: nobody creates the entry after the last one")
def never_ended(stack):
    def end_log(moved_to):
        log, answer = yield from ending.list_and_look()
        return Ended(max(log.entries, default=0), ending.read(answer)[1])

    swap(stack, end_log=end_log)


@breaks("the end: one in a place that the trim has reached is none")
def ended_below_the_trim(stack):
    def is_above_trim(last, database):
        yield e.Now()
        return True

    swap(stack, is_above_trim=is_above_trim)


@breaks("the end: an entry that a host may ask for makes place for no other one")
def places_freed(stack):
    swap(stack, may_be_created_again=lambda one, date: False)


@breaks("the end: _head is replaced before any entry is deleted")
def head_replaced_last(stack):
    bury, delete_all_of = ending.bury, ending.delete_all_of

    def bury_last(ended, kept):
        gone = yield from delete_all_of(ended, kept)
        yield from bury(ended.database)
        return gone

    swap(
        stack,
        bury=lambda database: iter(()),
        is_still_dropped=nothing_new,
        delete_all_of=bury_last,
    )


@breaks("the end: an entry that it may have replaced is unknown, not lost")
def lost_to_the_end(stack):
    swap(stack, is_end=lambda size: False)


# A database in the place of a dropped one


def nothing_new(database):
    yield e.Now()
    return True


@breaks("the next: who still drops the old one looks whether there is a new one")
def dropped_blindly(stack):
    swap(stack, is_still_dropped=nothing_new)


@breaks("the next: its catalog, which comes before its _head, is left alone")
def catalog_dropped(stack):
    swap(stack, is_of_next=lambda key, last: False)


@breaks("the next: the old _head is replaced, so that no late request hits another")
def head_deleted(stack):
    def bury(database):
        answer = yield k.Delete([HEAD])
        if answer.status != 200:
            raise failure(answer, "delete")

    swap(stack, bury=bury)


@breaks("the next: the end is put after what was listed before the look at _head")
def looked_before_the_list(stack):
    def list_and_look():
        answer = yield from ending.look()
        log = yield from rounds.list_all(LOG)
        return log, answer

    swap(stack, list_and_look=list_and_look)


@breaks("the next: _head is replaced if it is the one from before the LIST")
def made_over_another(stack):
    original = beginning.put_head

    def put_head(head, before):
        now = yield from ending.look()
        yield from original(head, now)

    swap(stack, put_head=put_head)


@breaks("the next: its log goes on from the end of the old one")
def begun_at_0(stack):
    original = beginning.put_head

    def put_head(head, before):
        anew = msgspec.structs.replace(head, trimmed=0, catalog="")
        yield from original(anew, before)

    swap(stack, put_head=put_head)


# What is written behind


@breaks("outbox: what the mark says is sent is not sent again")
def mark_ignored(stack):
    stack.enter_context(patch.object(SendBatch, "mark", lambda batch, draft: Mark()))


@breaks("outbox: the mark is read on the state that the entry is judged by")
def mark_read_before(stack):
    original = SendBatch.mark
    read: dict[int, Any] = {}

    def mark(batch, draft):
        known = read.setdefault(id(batch), (batch, original(batch, draft)))
        return known[1]

    stack.enter_context(patch.object(SendBatch, "mark", mark))


@breaks("outbox: the mark is set by the entry that has the changes")
def mark_not_set(stack):
    stack.enter_context(patch.object(SendBatch, "set", lambda batch, draft, mark: None))


@breaks("outbox: who dies before it has parked a commit finds it in the mark")
def parked_unmarked(stack):
    original = SendBatch.set

    def set_mark(batch, draft, mark):
        original(batch, draft, replace(mark, parked=[]))

    stack.enter_context(patch.object(SendBatch, "set", set_mark))


@breaks("outbox: commits are settled once they are committed")
def settled_first(stack):
    original = outbox.send_some

    def send_some(commits, done):
        yield outbox.Settle(Mark(commits[-1].id, commits[-1].token))
        yield from original(commits, done)

    stack.enter_context(patch.object(outbox, "send_some", send_some))


@breaks("outbox: a commit whose outcome is unknown waits on")
def unknown_is_sent(stack):
    original = outbox.send_some

    def send_some(commits, done):
        try:
            yield from original(commits, done)
        except CommitOutcomeUnknown:
            yield outbox.Settle(Mark(commits[-1].id, commits[-1].token))

    stack.enter_context(patch.object(outbox, "send_some", send_some))


@breaks("outbox: numbers that another copy has used are nobody's")
def old_copy_believed(stack):
    stack.enter_context(
        patch.object(outbox, "is_known", lambda mark, outset, commits: True)
    )
