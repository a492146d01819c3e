"""What goes in comes out, of the same type; nothing else goes in."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, override
from hypothesis import given
from hypothesis import strategies as st

from s3cache.caches.codec import MsgpackSerializer, PickleSerializer, serializer_for
from s3cache.caches.errors import NotSerializable, Undecodable

CODEC = MsgpackSerializer()

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.times(),
    st.datetimes(
        timezones=st.one_of(
            st.none(),
            st.just(dt.UTC),
            st.just(dt.timezone(dt.timedelta(hours=-3, minutes=30))),
            st.sampled_from(["Europe/Berlin", "America/New_York"]).map(
                zoneinfo.ZoneInfo
            ),
        )
    ),
    st.timedeltas(),
)
keys = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(atoms, max_size=4),
        st.frozensets(atoms, max_size=4),
    ),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    return CODEC.loads(CODEC.dumps(value))


def described(value: Any) -> Any:
    """The value with the type of each part."""
    if isinstance(value, dict):
        return dict, [(described(key), described(value[key])) for key in value]
    if isinstance(value, list | tuple):
        return type(value), [described(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(described(item)) for item in value)
    if isinstance(value, dt.datetime):
        return dt.datetime, value.isoformat(), value.fold, value.tzinfo
    return type(value), repr(value)


@given(values)
def test_values_keep_their_types(value: Any) -> None:
    assert described(there_and_back(value)) == described(value)


@given(st.binary(max_size=200))
def test_bytes_that_are_nothing_are_undecodable_or_a_value(data: bytes) -> None:
    try:
        CODEC.loads(data)
    except Undecodable:
        pass


@given(values, st.data())
def test_a_truncated_value_is_undecodable(value: Any, data: st.DataObject) -> None:
    whole = CODEC.dumps(value)
    with pytest.raises(Undecodable):
        CODEC.loads(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_an_extension_of_a_newer_release_is_foreign() -> None:
    with pytest.raises(Undecodable) as caught:
        CODEC.loads(msgspec.msgpack.encode(msgspec.msgpack.Ext(120, b"")))
    assert caught.value.reason == "foreign"


def test_a_safe_string_stays_safe() -> None:
    back = there_and_back({"html": mark_safe("<b>&</b>")})
    assert type(back["html"]) is SafeString
    assert back == {"html": "<b>&</b>"}


def test_a_lazy_string_becomes_its_text() -> None:
    with override("de"):
        assert there_and_back([gettext_lazy("Yes")]) == ["Ja"]


def test_a_bytearray_stays_one() -> None:
    assert there_and_back(bytearray(b"ab")) == bytearray(b"ab")
    assert type(there_and_back(bytearray(b"ab"))) is bytearray


@pytest.mark.parametrize(
    "value",
    [object(), len, User, {"a": object()}, Exception("x"), st.text],
    ids=["object", "function", "class", "inside", "exception", "method"],
)
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(NotSerializable, match="not among the types"):
        CODEC.dumps(value)


def test_a_subclass_is_not_its_base() -> None:
    class Name(str):
        pass

    with pytest.raises(NotSerializable, match="Name cannot be cached"):
        CODEC.dumps(Name("x"))


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotSerializable, match="contains itself"):
        CODEC.dumps(value)


def test_a_string_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(NotSerializable, match="not valid Unicode"):
        CODEC.dumps("\ud800")


def test_a_time_zone_of_another_kind_is_refused() -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(0)

        dst = utcoffset

        def tzname(self, when: dt.datetime | None) -> str:
            return "mine"

    with pytest.raises(NotSerializable, match="only UTC, fixed offsets and zoneinfo"):
        CODEC.dumps(dt.datetime(2026, 1, 1, tzinfo=Zone()))


def test_a_model_instance_keeps_its_columns_and_state() -> None:
    user = User(pk=7, username="ann", last_login=dt.datetime(2026, 1, 1))
    user._state.adding = False
    user._state.db = "default"
    user.__dict__["posts"] = 3  # an annotation
    back = there_and_back(user)
    assert type(back) is User
    assert back == user
    assert back.last_login == user.last_login
    assert back.__dict__["posts"] == 3
    assert (back._state.adding, back._state.db) == (False, "default")
    assert back.get_deferred_fields() == set()


def test_a_deferred_column_stays_deferred() -> None:
    back = there_and_back(User.from_db("default", ["id", "username"], [1, "ann"]))
    assert "email" in back.get_deferred_fields()
    assert back.username == "ann"


def test_a_row_of_a_model_that_has_changed_is_undecodable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = CODEC.dumps(User(pk=1))
    fields = User._meta.concrete_fields
    monkeypatch.setitem(User._meta.__dict__, "concrete_fields", fields[:-1])
    with pytest.raises(Undecodable, match="auth.user had other columns then"):
        CODEC.loads(data)


def test_a_response_comes_back_whole() -> None:
    response = HttpResponse(b"hello", status=201, reason="Made")
    response["X-One"] = "1"
    response.set_cookie("c", "v", max_age=60, httponly=True)
    back = there_and_back(response)
    assert (back.content, back.status_code, back.reason_phrase) == (
        b"hello",
        201,
        "Made",
    )
    assert dict(back.items()) == dict(response.items())
    assert back.cookies.output() == response.cookies.output()


def test_a_rendered_template_response_comes_back() -> None:
    template = engines["django"].from_string("Hello")
    response = TemplateResponse(RequestFactory().get("/"), template)
    with pytest.raises(NotSerializable, match="rendered"):
        CODEC.dumps(response)
    assert there_and_back(response.render()).content == b"Hello"


def test_pickle_takes_what_pickle_takes() -> None:
    made = PickleSerializer()
    assert made.loads(made.dumps(len)) is len


def test_serializers_are_chosen_by_name_or_path() -> None:
    assert isinstance(serializer_for("x", "msgpack"), MsgpackSerializer)
    path = "s3cache.caches.codec.PickleSerializer"
    assert isinstance(serializer_for("x", path), PickleSerializer)
    for wrong in ("nowhere.Serializer", 7):
        with pytest.raises(ImproperlyConfigured, match="^x is "):
            serializer_for("x", wrong)


@pytest.mark.parametrize(
    "value", [Decimal("1.10"), UUID(int=3), 2**64, -(2**63) - 1, 10**30, -0.0], ids=repr
)
def test_what_msgpack_would_change_is_kept(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    assert repr(back) == repr(value)
