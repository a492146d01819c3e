"""What every store does; each test runs on a bucket and on a directory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3cache.stores import Answer, Store

HOSTILE = [
    "a/b",
    "a//b",
    "trailing/",
    "Case",
    "case",
    "CASE",
    "a%2Fb",
    "%2e%2e/x",
    "~",
    "~41",
    "a~/b~",
    "with space",
    "plus+and&amp;",
    "<xml>'\"",
    "back\\slash",
    "..hidden/.lock",
    "...",
    "US/1",
    "USA/1",
    "emoji \N{SNOWMAN}\N{PILE OF POO}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300,
    "x" * 300,
    "y" * 79 + "/" + "y" * 80 + "/" + "y" * 81,
    "z" * 80 + "./..." + "z" * 160 + "..",
    "?query=1#fragment",
    "*",
    "con",
]

REFUSED = [
    "",
    "/absolute",
    ".",
    "..",
    "../escape",
    "a/../../escape",
    "a/./b",
    "nul\0",
    "line\nfeed",
    "\x7f",
    "\uffff",
    "\ud800",
    "x" * 1025,
]


def keys(answer: Answer) -> list[str]:
    assert answer.status == 200
    return [found.key for found in answer.keys]


def test_missing(store: Store) -> None:
    answer = store.get("missing")
    assert (answer.status, answer.ok, answer.unclear) == (404, False, False)
    assert answer.date is not None


def test_put_and_get(store: Store) -> None:
    started = time.time()
    written = store.put("dir/key", b"body")
    assert written.status == 200
    assert written.etag
    read = store.get("dir/key")
    assert (read.status, read.body, read.etag) == (200, b"body", written.etag)
    # The Date header has whole seconds.
    assert read.date == pytest.approx(started, abs=5)
    assert read.modified == pytest.approx(started, abs=5)


@pytest.mark.parametrize("body", [b"", b"\0\r\n\xff", b"x" * 5_000_000])
def test_any_body(store: Store, body: bytes) -> None:
    assert store.put("key", body).ok
    assert store.get("key").body == body


def test_put_replaces(store: Store) -> None:
    first = store.put("key", b"first")
    second = store.put("key", b"second")
    assert second.ok
    assert first.etag != second.etag
    assert store.get("key").body == b"second"


def test_put_if_none_match(store: Store) -> None:
    assert store.put("key", b"first", if_none_match=True).status == 200
    assert store.put("key", b"second", if_none_match=True).status == 412
    assert store.get("key").body == b"first"


def test_put_if_none_match_after_delete(store: Store) -> None:
    store.put("key", b"first")
    store.delete("key")
    assert store.put("key", b"second", if_none_match=True).status == 200


def test_put_if_match(store: Store) -> None:
    first = store.put("key", b"first")
    second = store.put("key", b"second", if_match=first.etag)
    assert second.status == 200
    assert store.put("key", b"third", if_match=first.etag).status == 412
    assert store.get("key").body == b"second"
    assert store.put("key", b"third", if_match=second.etag).status == 200


def test_put_if_match_of_a_missing_object(store: Store) -> None:
    etag = store.put("key", b"body").etag
    store.delete("key")
    assert store.put("key", b"body", if_match=etag).status == 404
    assert store.get("key").status == 404


def test_put_takes_one_condition(store: Store) -> None:
    with pytest.raises(ValueError, match="if_none_match or if_match, not both"):
        store.put("key", b"", if_none_match=True, if_match='"etag"')


def test_delete(store: Store) -> None:
    store.put("key", b"body")
    assert store.delete("key").status == 200
    assert store.get("key").status == 404
    assert store.delete("key").status == 200


def test_delete_if_match(store: Store) -> None:
    first = store.put("key", b"first").etag
    second = store.put("key", b"second").etag
    assert store.delete("key", if_match=first).status == 412
    assert store.get("key").body == b"second"
    assert store.delete("key", if_match=second).status == 200
    assert store.delete("key", if_match=second).status in {404, 412}


def test_delete_many(store: Store) -> None:
    for name in ("a/1", "a/2", "b"):
        store.put(name, b"")
    assert store.delete_many(["a/1", "b", "missing"]).status == 200
    assert keys(store.list("")) == ["a/2"]
    assert store.delete_many([]).status == 200


def test_delete_many_has_a_limit(store: Store) -> None:
    with pytest.raises(ValueError, match="at most 1000 keys, not 1001"):
        store.delete_many(["key"] * 1001)


def test_list_is_in_the_order_of_bytes(store: Store) -> None:
    names = ["A", "a-b", "a/b", "a/b-c", "a/b/", "a0", "b", "\uff5e", "\U0001f600"]
    # "a/b" and "a/b/" cannot both be in a directory.
    names.remove("a/b")
    for name in reversed(names):
        assert store.put(name, name.encode()).ok
    assert keys(store.list("")) == names
    assert sorted(names, key=str.encode) == names


def test_list_by_prefix(store: Store) -> None:
    for name in ("log/1", "log/2", "log-1", "logs/1", "Log/1"):
        store.put(name, b"")
    assert keys(store.list("log/")) == ["log/1", "log/2"]
    assert keys(store.list("log")) == ["log-1", "log/1", "log/2", "logs/1"]
    assert keys(store.list("missing/")) == []


def test_list_pages(store: Store) -> None:
    names = [f"log/{number:03d}" for number in range(7)]
    for name in names:
        store.put(name, b"")
    found: list[str] = []
    page = store.list("log/", limit=3)
    while True:
        found += keys(page)
        if not page.more:
            break
        assert len(page.keys) == 3
        page = store.list("log/", start_after=found[-1], limit=3)
    assert found == names


def test_list_starts_after_a_key_that_need_not_exist(store: Store) -> None:
    for name in ("a/1", "a/3", "b/1"):
        store.put(name, b"")
    assert keys(store.list("", start_after="a/2")) == ["a/3", "b/1"]
    assert keys(store.list("a/", start_after="a/3")) == []
    assert keys(store.list("b/", start_after="a/1")) == ["b/1"]


def test_list_tells_etag_size_and_time(store: Store) -> None:
    etag = store.put("key", b"12345").etag
    [found] = store.list("").keys
    assert (found.key, found.etag, found.size) == ("key", etag, 5)
    assert found.modified == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("limit", [0, 1001])
def test_list_has_limits(store: Store, limit: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        store.list("", limit=limit)


def test_hostile_keys(store: Store) -> None:
    for key in HOSTILE:
        assert store.put(key, key.encode(), if_none_match=True).status == 200, key
    for key in HOSTILE:
        assert store.get(key).body == key.encode(), key
    assert keys(store.list("")) == sorted(HOSTILE, key=str.encode)
    for key in HOSTILE:
        assert keys(store.list(key, limit=1)) == [key]
    assert store.delete_many(HOSTILE).status == 200
    assert keys(store.list("")) == []


@pytest.mark.parametrize("key", REFUSED, ids=ascii)
def test_refused_keys(store: Store, key: str) -> None:
    answers = [
        store.get(key),
        store.put(key, b""),
        store.delete(key),
        store.delete_many([key]),
    ]
    assert {answer.status for answer in answers} == {400}
    assert all("Key" in answer.message for answer in answers)
    assert store.requests.total == 0


@pytest.mark.parametrize("key", sorted(set(REFUSED) - {""}), ids=ascii)
def test_refused_prefixes(store: Store, key: str) -> None:
    assert store.list(key).status == 400
    assert store.list("", start_after=key).status == 400


def test_one_thread_creates(store: Store) -> None:
    barrier = threading.Barrier(16)

    def create(number: int) -> Answer:
        barrier.wait()
        return store.put("log/1", b"%d" % number, if_none_match=True)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(create, range(16)))
    assert sorted(answer.status for answer in answers) == [200] + [412] * 15
    winner = next(number for number, answer in enumerate(answers) if answer.ok)
    assert store.get("log/1").body == b"%d" % winner


def test_no_update_by_etag_is_lost(store: Store) -> None:
    store.put("counter", b"0")

    def increment() -> int:
        conflicts = 0
        while True:
            read = store.get("counter")
            value = b"%d" % (int(read.body) + 1)
            answer = store.put("counter", value, if_match=read.etag)
            if answer.ok:
                return conflicts
            assert answer.status in {409, 412}
            conflicts += 1

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(increment) for _ in range(24)]:
            future.result()
    assert store.get("counter").body == b"24"


def test_readers_see_whole_objects(store: Store) -> None:
    bodies = [bytes([letter]) * 100_000 for letter in b"ab"]
    store.put("key", bodies[0])
    done = threading.Event()

    def write() -> None:
        for number in range(20):
            store.put("key", bodies[number % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            assert store.get("key").body in bodies
        writing.result()


def test_name_and_repr(store: Store) -> None:
    assert repr(store) == f"<{type(store).__name__} {store.name}>"
