"""Calls of etcd's v3 API, made at whichever member answers, as whoever we are.

Rules of this file
  1. It knows members, tokens and errors; what the calls are for is the business of ``etcd3``.
  2. Every call demands a member that has a leader: one cut off from its cluster would serve old data, or wait.
  3. Every call we make may be carried out twice without harm (``etcd3`` sees to that), so one that got no answer is
     made again at the next member.  And that early: one that hangs would keep us waiting for seconds, and so does
     every follower whose leader just died with our call in its hands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import SLOW_S, Credentials, Endpoint, Rotation, Tls, parse_endpoint
from pyflannel.store.etcd3_wire import (
    AUTHENTICATE,
    RANGE,
    WATCH,
    A,
    AuthenticateRequest,
    Event,
    Method,
    Q,
    RangeRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from pyflannel.store.grpc import Conversation, Link, Refused

T = TypeVar("T")

_API: Final = "etcd v3"
_WITH_LEADER: Final = {"hasleader": "true"}
# The last one comes when authentication was switched on after we were told that there is none.
_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old", "user name is empty")
_AUTH_IS_OFF: Final = "authentication is not enabled"


class LeaseGone(Exception):
    """There is no etcd lease of that id."""


class Session:
    """One client of one etcd."""

    def __init__(self, urls: Sequence[str], credentials: Credentials | None, tls: Tls) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none."""
        # Go flanneld speaks TLS to an http:// address too, once it was given certificate and key (compat §3.8).
        endpoints = [parse_endpoint(url, always_secure=tls.has_identity) for url in urls]
        self._rotation = Rotation(_API, endpoints)
        self._credentials = credentials
        self._tls = tls
        self._links: dict[Endpoint, Link] = {}
        self._token: str | None = None

    def __str__(self) -> str:
        """API and addresses, for people."""
        return str(self._rotation)

    async def call(self, method: Method[Q, A], request: Q) -> A:
        """Make a call; ``Unavailable`` if no member answers or the one that does says no, ``LeaseGone``."""
        return (await self.call_at(method, request))[1]

    async def call_at(self, method: Method[Q, A], request: Q) -> tuple[Endpoint, A]:
        """The same, and who answered."""

        async def question(endpoint: Endpoint) -> tuple[Endpoint, A]:
            link = self._links.setdefault(endpoint, Link(endpoint, self._tls))
            return endpoint, await self._ask(link, method, request)

        return await self._somewhere(question)

    @asynccontextmanager
    async def watching(self, request: WatchCreateRequest, quiet_s: float) -> AsyncIterator[Watching]:
        """Open a connection for one watch, its own so that no slow or failed call disturbs it, nor it any call.

        ``HistoryLost``, now or later, if the store has not come as far as it is to be watched from.
        """
        probe = RangeRequest(request.key, keys_only=True)
        link, revision = await self._first_to_tell_its_revision(probe)
        reached = request.start_revision - 1
        try:
            _compare(revision, reached)
            async with link.converse(WATCH, self._metadata()) as talk:
                await talk.send(WatchRequest(create_request=request))
                yield Watching(talk, reached, lambda: self._revision(link, probe), quiet_s)
        except (Unavailable, Refused) as failure:
            if _is_stale(failure):
                self._token = None
            else:
                self._rotation.avoid(link.endpoint)
            raise Unavailable(f"{_API} at {link.endpoint}: watch ended: {failure}") from failure
        except HistoryLost as lost:
            raise HistoryLost(f"{_API} at {link.endpoint}: {lost}") from lost
        finally:
            await link.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        while self._links:
            await self._links.popitem()[1].close()

    async def _somewhere(self, question: Callable[[Endpoint], Awaitable[T]]) -> T:
        try:
            return await self._rotation.ask(question, SLOW_S)
        except Refused as no:
            raise LeaseGone(str(no)) if no.status == "NOT_FOUND" else Unavailable(str(no)) from no

    async def _first_to_tell_its_revision(self, probe: RangeRequest) -> tuple[Link, int]:
        """A new connection to a member that answers us, and its answer."""
        opened: list[Link] = []

        async def question(endpoint: Endpoint) -> tuple[Link, int]:
            link = Link(endpoint, self._tls)
            opened.append(link)
            return link, await self._revision(link, probe)

        try:
            chosen, revision = await self._somewhere(question)
            opened.remove(chosen)
            return chosen, revision
        finally:
            for link in opened:
                await link.close()

    async def _revision(self, link: Link, probe: RangeRequest) -> int:
        """How far the store has come; no member answers that without the others."""
        header = (await self._ask(link, RANGE, probe)).header
        return header.revision if header is not None else 0

    async def _ask(self, link: Link, method: Method[Q, A], request: Q) -> A:
        """One call at one member, with a fresh token if there is none or it got old."""
        try:
            if self._credentials is not None and self._token is None:
                await self._authenticate(link, self._credentials)
            try:
                return await link.call(method, request, self._metadata())
            except Refused as no:
                if self._credentials is None or not _is_stale(no):
                    raise
                await self._authenticate(link, self._credentials)
                return await link.call(method, request, self._metadata())
        except Refused as no:
            raise Refused(no.status, f"{_API} at {link.endpoint}: {no}") from no

    async def _authenticate(self, link: Link, who: Credentials) -> None:
        try:
            answer = await link.call(AUTHENTICATE, AuthenticateRequest(who.user, who.password), _WITH_LEADER)
        except Refused as no:
            if _AUTH_IS_OFF not in str(no):
                raise
            self._token = ""  # an etcd that asks nobody who he is takes us as we are
        else:
            self._token = answer.token

    def _metadata(self) -> dict[str, str]:
        return {**_WITH_LEADER, "token": self._token} if self._token else _WITH_LEADER


class Watching:
    """One watch, and how far it has come."""

    def __init__(
        self,
        talk: Conversation[WatchRequest, WatchResponse],
        reached: int,
        ask_revision: Callable[[], Awaitable[int]],
        quiet_s: float,
    ) -> None:
        """``ask_revision`` asks the store over the same connection."""
        self.reached = reached
        """The revision up to which everything was told."""
        self._talk = talk
        self._ask_revision = ask_revision
        self._quiet_s = quiet_s

    async def next(self) -> tuple[Event, ...]:
        """What happened next; nothing after at most twice ``quiet_s`` and an answer that proves the member alive.

        ``HistoryLost`` if the revisions asked for are gone, or the store turns out to be younger than we thought.
        """
        answer = await self._talk.receive(self._quiet_s)
        if answer is None:
            await self._talk.send(WatchRequest(progress_request=WatchProgressRequest()))
            answer = await self._talk.receive(self._quiet_s)
        if answer is None:
            # An etcd before 3.4 does not know that request; one that is busy catching up may leave it unanswered.
            _compare(await self._ask_revision(), self.reached)
            return ()
        if answer.compact_revision:
            raise HistoryLost(f"revisions before {answer.compact_revision} are compacted")
        if answer.canceled:
            raise Unavailable(answer.cancel_reason or "canceled by the server")
        await self._follow(answer)
        return answer.events

    async def _follow(self, answer: WatchResponse) -> None:
        """Move on as far as ``answer`` does (see ``WatchResponse``)."""
        revisions = [event.kv.mod_revision for event in answer.events if event.kv is not None]
        if revisions:
            if min(revisions) <= self.reached:
                raise HistoryLost(f"it told of revision {min(revisions)} after {self.reached}")
            self.reached = max(revisions)
        elif not answer.events and answer.header is not None:
            if answer.header.revision < self.reached:
                # Two answers of a busy member may overtake each other; ask before believing it.
                _compare(await self._ask_revision(), self.reached)
            elif not answer.created and answer.watch_id >= 0:
                self.reached = answer.header.revision


def _compare(revision: int, reached: int) -> None:
    """``HistoryLost`` if the store is at a revision before what it told: restored from a backup, or made anew.

    A watch of it would be silent until it comes this far again, and then go on with another story.
    """
    if revision < reached:
        raise HistoryLost(f"it is at revision {revision}, we have seen {reached}")


def _is_stale(no: Exception) -> bool:
    """Whether a new token would help."""
    return any(text in str(no) for text in _STALE_TOKEN)
