"""Requests to etcd's v2 API, made at whichever member answers.

Rules of this file
  1. It knows that there are several members; what is asked for is the business of ``etcd2``.
  2. A write that got no answer is made again at the next member.  All our writes carry a condition, so the second
     attempt fails on the first one's success; the ``Reply`` tells that this may be so.
  3. A read that is not answered soon is made at the next member as well.  A member that lost its leader with a read in
     hand forgets it, and would keep us waiting for the whole time we give it though another leader is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import CALL_S, SLOW_S, Credentials, Endpoint, Rotation, Tls, parse_endpoint
from pyflannel.store.etcd2_member import QUORUM, Member, Reply

_API: Final = "etcd v2"


class Session:
    """One client of one etcd."""

    def __init__(
        self, urls: Sequence[str], credentials: Credentials | None, tls: Tls, *, call_s: float = CALL_S
    ) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none."""
        endpoints = [parse_endpoint(url) for url in urls]
        self._rotation = Rotation(_API, endpoints)
        self._members = {endpoint: Member(endpoint, credentials, tls, call_s) for endpoint in endpoints}

    def __str__(self) -> str:
        """API and addresses, for people."""
        return str(self._rotation)

    async def ask(
        self, method: str, key: str, query: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Reply:
        """Make a request about ``key``."""
        attempts = 0

        async def question(endpoint: Endpoint) -> Reply:
            nonlocal attempts
            member = self._members[endpoint]
            try:
                await member.reach()
                attempts += 1
                return await member.ask(method, key, query, form)
            except Unavailable:
                await member.close()  # a connection on which something went wrong is not used again
                raise

        reply = await self._rotation.ask(question, SLOW_S if method == "GET" else None)
        return replace(reply, repeated=attempts > 1)

    @asynccontextmanager
    async def watching(self, key: str) -> AsyncIterator[Member]:
        """A member to watch at: one that answers us and has a leader, as it proves by reading ``key``."""
        reply = await self.ask("GET", key, QUORUM)
        try:
            yield self._members[reply.endpoint]
        except Unavailable as failure:
            self._rotation.avoid(reply.endpoint)
            raise Unavailable(f"{_API} at {reply.endpoint}: watch ended: {failure}") from failure

    async def close(self) -> None:
        """Hang up everywhere."""
        for member in self._members.values():
            await member.close()
