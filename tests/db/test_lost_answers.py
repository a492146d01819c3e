"""
A bucket that does not answer, or not truthfully: what callers are told.

The connection is cut, or an error put in the place of an answer, by the
server that stands for S3.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, transaction
from django.db.models import F

from s3cache.exceptions import CommitOutcomeUnknown, StoreRefused, StoreUnavailable
from tests.db.hosts import on
from tests.engine import Bucket, Host, MakeHost
from tests.faults.rules import Lost
from tests.library.models import Author, Tag
from tests.s3_server import S3Server

pytestmark = pytest.mark.parametrize("bucket", ["s3"], indirect=True)


@pytest.fixture
def impatient(hosts: MakeHost) -> Host:
    """A host that gives a commit up after half a second."""
    host = hosts(commit_timeout=0.5)
    host.catch_up()
    return host


def names(host: Host) -> list[str]:
    """The tags that a host finds when it asks."""
    host.catch_up()
    with host:
        return list(Tag.objects.order_by("name").values_list("name", flat=True))


# Commits that happened


def test_an_answer_that_was_lost_after_the_commit(
    host: Host, bucket: Bucket, s3_server: S3Server
) -> None:
    with (
        s3_server.fault("PUT", "/_log/", lost="after", times=1),
        bucket.requests() as seen,
    ):
        Tag.objects.create(name="a")
    # The second PUT finds it there, and only its token tells that it is ours.
    assert seen == ["PUT log", "PUT log", "GET log"]
    assert names(host) == ["a"]


def test_a_request_that_was_lost_before_the_commit(
    host: Host, bucket: Bucket, s3_server: S3Server
) -> None:
    with (
        s3_server.fault("PUT", "/_log/", lost="before", times=1),
        bucket.requests() as seen,
    ):
        Tag.objects.create(name="a")
    assert seen == ["PUT log", "PUT log"]
    assert names(host) == ["a"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "ConditionalRequestConflict"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "SlowDown"),
    ],
)
def test_errors_that_pass(
    host: Host, bucket: Bucket, s3_server: S3Server, status: int, code: str
) -> None:
    fault = s3_server.fault("PUT", "/_log/", status=status, code=code, times=2)
    with fault, bucket.requests() as seen:
        Tag.objects.create(name="a")
    assert seen == ["PUT log"] * 3
    assert names(host) == ["a"]


def test_increments_are_exact_whatever_answers_are_lost(
    hosts: MakeHost, s3_server: S3Server
) -> None:
    a, b = hosts(), hosts()
    with a:
        Author.objects.create(name="hits", born=0)
    b.catch_up()
    for number in range(12):
        lost = ("", "before", "after")[number % 3]
        with (
            (a, b)[number % 2],
            s3_server.fault("PUT", "/_log/", lost=lost, times=1 if lost else 0),  # type: ignore[arg-type]
        ):
            Author.objects.update(born=F("born") + 1)
    for host in (a, b):
        host.catch_up()
        with host:
            assert Author.objects.get().born == 12


def test_hooks_run_once_when_the_answer_was_lost(
    host: Host, s3_server: S3Server
) -> None:
    ran: list[int] = []
    with s3_server.fault("PUT", "/_log/", lost="after", times=1), transaction.atomic():
        Tag.objects.create(name="a")
        transaction.on_commit(lambda: ran.append(1))
    assert ran == [1]


# Commits that did not


def test_a_403_at_the_first_attempt_is_a_failure(
    impatient: Host, bucket: Bucket, s3_server: S3Server
) -> None:
    fault = s3_server.fault("PUT", "/_log/", status=403, code="AccessDenied")
    with impatient, fault, bucket.requests() as seen:
        with pytest.raises(StoreRefused, match="s3:PutObject"):
            Tag.objects.create(name="a")
        assert not Tag.objects.exists()
    assert seen == ["PUT log"]
    assert names(impatient) == []


def test_hooks_do_not_run_when_the_commit_failed(
    impatient: Host, s3_server: S3Server
) -> None:
    ran: list[int] = []
    with impatient:
        with (
            s3_server.fault("PUT", "/_log/", status=403, code="AccessDenied"),
            pytest.raises(StoreRefused),
            transaction.atomic(),
        ):
            Tag.objects.create(name="a")
            transaction.on_commit(lambda: ran.append(1))
        with transaction.atomic():
            Tag.objects.create(name="b")
    assert ran == []
    assert names(impatient) == ["b"]


def test_a_commit_whose_every_answer_is_lost_is_found_in_the_log(
    impatient: Host, s3_server: S3Server
) -> None:
    with impatient, s3_server.fault("PUT", "/_log/", lost="after"):
        Tag.objects.create(name="a")
        assert Tag.objects.get().name == "a"


def test_a_403_after_an_unclear_attempt_says_nothing(
    impatient: Host, s3_server: S3Server
) -> None:
    with (
        impatient,
        s3_server.fault("PUT", "/_log/", lost="after", times=1),
        s3_server.fault("PUT", "/_log/", status=403, code="AccessDenied"),
    ):
        Tag.objects.create(name="a")
    assert names(impatient) == ["a"]


# Commits of which nobody knows


@contextmanager
def nobody_knows(server: S3Server, lost: Lost) -> Iterator[CommitOutcomeUnknown]:
    """No PUT of an entry is answered, nor can the log be read."""
    with (
        server.fault("PUT", "/_log/", lost=lost),
        server.fault("GET", "/_log/", status=503, code="SlowDown"),
        pytest.raises(CommitOutcomeUnknown) as unknown,
    ):
        error = CommitOutcomeUnknown("", position=0, token="")
        yield error
    error.position, error.token = unknown.value.position, unknown.value.token


def test_a_commit_that_happened(impatient: Host, s3_server: S3Server) -> None:
    with impatient, nobody_knows(s3_server, "after") as unknown:
        Tag.objects.create(name="a")
    assert unknown.position == impatient.position + 1
    assert names(impatient) == ["a"]
    outcome = impatient.connection.replica.file.outcome_of
    assert outcome(unknown.token) == "committed"


def test_a_commit_that_did_not_happen(
    hosts: MakeHost, impatient: Host, s3_server: S3Server
) -> None:
    with impatient, nobody_knows(s3_server, "before") as unknown:
        Tag.objects.create(name="a")
    outcome = impatient.connection.replica.file.outcome_of
    assert outcome(unknown.token) == ""  # it may still land
    with hosts():
        Tag.objects.create(name="b")
    assert names(impatient) == ["b"]
    assert outcome(unknown.token) == "lost"


def test_that_the_entry_is_not_there_proves_nothing(
    impatient: Host, s3_server: S3Server
) -> None:
    """The request may still be under way."""
    with (
        impatient,
        s3_server.fault("PUT", "/_log/", lost="before"),
        pytest.raises(CommitOutcomeUnknown),
    ):
        Tag.objects.create(name="a")


def test_it_is_an_operational_error_as_callers_know_it(
    impatient: Host, s3_server: S3Server
) -> None:
    with (
        impatient,
        s3_server.fault("PUT", "/_log/", lost="before"),
        pytest.raises(OperationalError, match="read before you write it again"),
        transaction.atomic(),
    ):
        Tag.objects.create(name="a")


def test_the_next_write_goes_on(impatient: Host, s3_server: S3Server) -> None:
    with impatient:
        with nobody_knows(s3_server, "after"):
            Tag.objects.create(name="a")
        Tag.objects.create(name="b")
        assert Tag.objects.count() == 2


# Reads


def test_a_read_repeats_a_request_that_was_lost(
    hosts: MakeHost, bucket: Bucket, s3_server: S3Server
) -> None:
    a, b = hosts(), hosts(max_age=60, stale_if_error=0)
    b.catch_up()
    with a:
        Tag.objects.create(name="a")
    b.pass_time(61)
    with (
        b,
        s3_server.fault("GET", "/_log/", lost="midway", times=1),
        bucket.requests() as seen,
    ):
        assert Tag.objects.count() == 1
    assert seen == ["GET log"] * 3


def test_a_cold_host_repeats_what_was_lost(
    hosts: MakeHost, s3_server: S3Server
) -> None:
    with s3_server.fault("GET", lost="before", times=1), hosts():
        assert Tag.objects.count() == 0


def test_fresh_says_that_the_bucket_is_down(host: Host, s3_server: S3Server) -> None:
    with (
        s3_server.fault("GET", "/_log/", status=503, code="SlowDown"),
        pytest.raises(StoreUnavailable),
    ):
        host.catch_up()
    assert Tag.objects.count() == 0


def test_a_commit_that_takes_long_holds_nobody_up_who_reads(
    host: Host, s3_server: S3Server
) -> None:
    Tag.objects.create(name="a")

    def write() -> None:
        with on(host):
            Tag.objects.create(name="b")

    writer = threading.Thread(target=write)
    with s3_server.fault("PUT", "/_log/", delay=1.0), s3_server.recording() as seen:
        writer.start()
        while not seen:
            time.sleep(0.01)
        assert Tag.objects.count() == 1
        assert writer.is_alive()
        writer.join()
    assert Tag.objects.count() == 2
