"""Calls of etcd's v3 API, made at whichever member answers, as whoever we are.

Rules of this file
  1. It knows members, tokens and errors; what the calls are for is the business of ``etcd3``.
  2. Every call demands a member that has a leader: one cut off from its cluster would serve old data, or wait.
  3. Every call we make may be carried out twice without harm (``etcd3`` sees to that), so one that got no answer is
     made again at the next member.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, TypeVar

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import Credentials, Endpoint, Rotation, Tls, parse_endpoint
from pyflannel.store.etcd3_wire import (
    AUTHENTICATE,
    RANGE,
    WATCH,
    A,
    AuthenticateRequest,
    Method,
    Q,
    RangeRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from pyflannel.store.grpc import Conversation, Link, Refused

T = TypeVar("T")

_API: Final = "etcd v3"
_WITH_LEADER: Final = {"hasleader": "true"}
_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")
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
    async def watching(self, probe: RangeRequest, quiet_s: float) -> AsyncIterator[Watching]:
        """Open a connection for one watch, its own so that no slow or failed call disturbs it, nor it any call.

        ``probe`` is asked first: it finds a member that answers us, and learns the revision of the store.
        """

        async def question(endpoint: Endpoint) -> tuple[Link, int]:
            link = Link(endpoint, self._tls)
            try:
                header = (await self._ask(link, RANGE, probe)).header
            except BaseException:
                await link.close()
                raise
            return link, header.revision if header else 0

        link, revision = await self._somewhere(question)
        alive = replace(probe, serializable=True)
        try:
            async with link.converse(WATCH, self._metadata()) as talk:
                yield Watching(revision, talk, lambda: self._ask(link, RANGE, alive), quiet_s)
        except (Unavailable, Refused) as failure:
            self._rotation.avoid(link.endpoint)
            if any(text in str(failure) for text in _STALE_TOKEN):
                self._token = None
            raise Unavailable(f"{_API} at {link.endpoint}: watch ended: {failure}") from failure
        finally:
            await link.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        while self._links:
            await self._links.popitem()[1].close()

    async def _somewhere(self, question: Callable[[Endpoint], Awaitable[T]]) -> T:
        try:
            return await self._rotation.ask(question)
        except Refused as no:
            raise LeaseGone(str(no)) if no.status == "NOT_FOUND" else Unavailable(str(no)) from no

    async def _ask(self, link: Link, method: Method[Q, A], request: Q) -> A:
        """One call at one member, with a fresh token if there is none or it got old."""
        try:
            if self._credentials is not None and self._token is None:
                await self._authenticate(link, self._credentials)
            try:
                return await link.call(method, request, self._metadata())
            except Refused as no:
                if self._credentials is None or not any(text in str(no) for text in _STALE_TOKEN):
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
    """The connection of one watch."""

    def __init__(
        self,
        revision: int,
        talk: Conversation[WatchRequest, WatchResponse],
        probe: Callable[[], Awaitable[object]],
        quiet_s: float,
    ) -> None:
        """``probe`` makes any call over the same connection."""
        self.revision = revision
        """Of the store, when the connection was made."""
        self._talk = talk
        self._probe = probe
        self._quiet_s = quiet_s

    async def begin(self, request: WatchRequest) -> None:
        """Say what is to be watched."""
        await self._talk.send(request)

    async def next(self) -> WatchResponse | None:
        """What comes next; None after at most twice ``quiet_s`` and an answer that proves the member alive.

        ``HistoryLost`` if the revisions asked for are gone.
        """
        answer = await self._talk.receive(self._quiet_s)
        if answer is None:
            await self._talk.send(WatchRequest(progress_request=WatchProgressRequest()))
            answer = await self._talk.receive(self._quiet_s)
        if answer is None:
            # An etcd before 3.4 does not know that request; one that is busy catching up may leave it unanswered.
            await self._probe()
        elif answer.compact_revision:
            raise HistoryLost(f"revisions before {answer.compact_revision} are compacted")
        elif answer.canceled:
            raise Unavailable(answer.cancel_reason or "canceled by the server")
        return answer
