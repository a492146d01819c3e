"""Whoever has written sees it, whichever host answers next."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from typing import Any, Final, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from s3cache import conf
from s3cache.db.base import DatabaseWrapper, max_ages
from s3cache.db.commits import Commits, watch_commits
from s3cache.middleware.base import Middleware
from s3cache.middleware.cookies import POSITION_COOKIE

SALT: Final = "s3cache.middleware.position"

#: Seconds that a page may take to arrive and the next request to be answered.
_ON_THE_WAY: Final = 10

logger = logging.getLogger("s3cache.middleware")


class ReadYourWritesMiddleware(Middleware):
    """
    Let visitors see on every host what they have written on one.

    A host may be `max_age` seconds behind the others. A response to a request
    that has written takes a signed cookie along, which says how far the log
    was; a host that has not come so far asks the store before it answers the
    next request: one GET, and one for each entry. Nothing is asked otherwise,
    and without a write there is no cookie.

    The cookie is kept until each host has asked by itself, and has the
    domain, path, `Secure` and `SameSite` of the session's. Place it before
    whatever reads the database, such as `SessionMiddleware`, and behind what
    opens tenants, if there are any.

    While the store is down the request is answered from what the host has.
    """

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer, after catching up with what the visitor has written."""
        if self.is_async:
            return self._acall(request)
        if wanted := _wanted_by(request):
            _reach(wanted)
        with watch_commits() as commits:
            response: HttpResponseBase = self.get_response(request)
        if commits:
            _set_cookie(response, wanted, commits)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        if wanted := _wanted_by(request):
            await sync_to_async(_reach)(wanted)
        with watch_commits() as commits:
            response: HttpResponseBase = await self.get_response(request)
        if commits:
            # Opens nothing: a connection that has committed is there.
            await sync_to_async(_set_cookie)(response, wanted, commits)
        return response


#: By alias, the id of a database and the number of an entry.
_Wanted = dict[str, tuple[str, int]]


def _wanted_by(request: HttpRequest) -> _Wanted:
    """What the request's cookie asks for; nothing if it is not ours."""
    if POSITION_COOKIE not in request.COOKIES:
        return {}
    text = request.get_signed_cookie(POSITION_COOKIE, default="", salt=SALT)
    wanted: _Wanted = {}
    for part in (text or "").split("/"):
        # A tenant's alias has a colon in it.
        alias, database, number = ["", "", *part.rsplit(":", 2)][-3:]
        if conf.lives_in_bucket(alias) and number.isdecimal():
            wanted[alias] = database, int(number)
    return wanted


def _reach(wanted: _Wanted) -> None:
    for alias, (database, number) in wanted.items():
        connection = cast(DatabaseWrapper, connections[alias])
        try:
            here = connection.replica.position()
            if here.database == database and here.number < number:
                connection.catch_up()
        except DatabaseError as error:
            logger.warning(
                "%s: could not ask for entry %d, which a visitor has written: %s",
                alias,
                number,
                error,
            )


def _set_cookie(response: HttpResponseBase, wanted: _Wanted, commits: Commits) -> None:
    """Say how far the log was, for as long as a host may not know it."""
    wanted = {
        **wanted,
        **{
            alias: (at.database, at.number)
            for alias, at in commits.items()
            if conf.lives_in_bucket(alias)  # a tenant may have been dropped
        },
    }
    if not wanted:
        return
    longest = max(map(_longest_age, wanted))
    if not longest:
        return  # every read asks the store
    response.set_signed_cookie(
        POSITION_COOKIE,
        "/".join(f"{alias}:{at[0]}:{at[1]}" for alias, at in wanted.items()),
        salt=SALT,
        max_age=math.ceil(longest) + _ON_THE_WAY,
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite=cast(Any, settings.SESSION_COOKIE_SAMESITE),
    )


def _longest_age(alias: str) -> float:
    """How old what a host reads of this database may be, in seconds."""
    connection = cast(DatabaseWrapper, connections[alias])
    return max(connection.replica.options.max_age, *max_ages().values(), 0.0)
