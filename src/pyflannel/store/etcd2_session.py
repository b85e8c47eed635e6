"""Requests to etcd's v2 API, made at whichever member answers, as whoever we are.

Rules of this file
  1. It knows members, passwords and errors; what is asked for is the business of ``etcd2``.
  2. The three failures that are an answer (no such key, condition failed, key exists) are returned.  Any other, and
     whatever is not the v2 API's JSON, is ``Unavailable``: another member is asked, or the same one later.
  3. A write that got no answer is made again at the next member.  All our writes carry a condition, so at worst the
     second attempt fails on the first one's success, and the caller looks again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import (
    CALL_S,
    CONNECT_S,
    Credentials,
    Endpoint,
    NotOffered,
    Rotation,
    Tls,
    parse_endpoint,
    plain_words,
    tls_context,
)
from pyflannel.store.etcd2_wire import (
    COMPARE_FAILED,
    INDEX_CLEARED,
    KEY_NOT_FOUND,
    NODE_EXISTS,
    Action,
    Failure,
    read_answer,
)
from pyflannel.store.http1 import Answer, BadAnswer, Client, basic_auth, tcp

_API: Final = "etcd v2"
_FORM: Final = ("content-type", "application/x-www-form-urlencoded")
_ANSWERS: Final = frozenset({KEY_NOT_FOUND, COMPARE_FAILED, NODE_EXISTS})
_NOT_FOUND: Final = 404
_SHOWN: Final = 100
"""Characters of a foreign text that go into a message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a member answered."""

    endpoint: Endpoint
    index: int
    """How many changes its store had seen then."""
    content: Action | Failure


class Session:
    """One client of one etcd."""

    def __init__(self, urls: Sequence[str], credentials: Credentials | None, tls: Tls) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none."""
        self._rotation = Rotation(_API, [parse_endpoint(url) for url in urls])
        self._headers = (basic_auth(credentials.user, credentials.password),) if credentials else ()
        self._tls = tls
        self._clients: dict[Endpoint, Client] = {}

    def __str__(self) -> str:
        """API and addresses, for people."""
        return str(self._rotation)

    async def ask(
        self, method: str, key: str, query: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Reply:
        """Make a request about ``key``."""

        async def question(endpoint: Endpoint) -> Reply:
            try:
                if endpoint not in self._clients:
                    self._clients[endpoint] = self._client(endpoint)
                return await self._request(endpoint, self._clients[endpoint], method, key, query, form)
            except Unavailable:
                # What failed once is not used again; a new connection also reads the certificates anew.
                if (client := self._clients.pop(endpoint, None)) is not None:
                    await client.close()
                raise

        return await self._rotation.ask(question)

    @asynccontextmanager
    async def watching(self, key: str, query: Mapping[str, str]) -> AsyncIterator[Watching]:
        """Open a connection for one watch, which no other request has to wait behind.

        ``key`` is asked for first: it finds a member that answers us, and learns how far the store is.
        """

        async def question(endpoint: Endpoint) -> tuple[Client, Reply]:
            client = self._client(endpoint)
            try:
                return client, await self._request(endpoint, client, "GET", key, query, None)
            except BaseException:
                await client.close()
                raise

        client, reply = await self._rotation.ask(question)
        try:
            yield Watching(client, self._headers, reply.index)
        except Unavailable as failure:
            self._rotation.avoid(reply.endpoint)
            raise Unavailable(f"{_API} at {reply.endpoint}: watch ended: {failure}") from failure
        finally:
            await client.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        while self._clients:
            await self._clients.popitem()[1].close()

    def _client(self, endpoint: Endpoint) -> Client:
        context = tls_context(self._tls) if endpoint.secure else None
        opener = tcp(endpoint.host, endpoint.port, context)
        return Client(opener, endpoint.authority, connect_s=CONNECT_S, answer_s=CALL_S)

    async def _request(
        self,
        endpoint: Endpoint,
        client: Client,
        method: str,
        key: str,
        query: Mapping[str, str],
        form: Mapping[str, str] | None,
    ) -> Reply:
        headers = (*self._headers, _FORM) if form else self._headers
        body = urlencode(form).encode() if form else b""
        async with _exchange(client, method, key, query, headers, body) as answer:
            content = _read(answer.status, await answer.body(CALL_S))
        if isinstance(content, Failure) and content.code not in _ANSWERS:
            raise Unavailable(content.text)
        return Reply(endpoint, _index(answer), content)


class Watching:
    """The connection of one watch."""

    def __init__(self, client: Client, headers: Sequence[tuple[str, str]], index: int) -> None:
        """``client`` is nobody else's."""
        self.index = index
        """Of the store, when the connection was made."""
        self._client = client
        self._headers = headers

    async def wait(self, key: str, query: Mapping[str, str], quiet_s: float) -> tuple[int, Action | Failure | None]:
        """The index of the store when the wait began, and what happened within ``quiet_s``.

        If that is nothing (None), then nothing that was asked for happened up to that index either: etcd sends the head
        of its answer before it waits, and what is in its memory already it would have told at once.  The only
        ``Failure`` is that its memory does not go back so far.
        """
        async with _exchange(self._client, "GET", key, query, self._headers, b"") as answer:
            try:
                body = await answer.body(quiet_s)
            except TimeoutError:
                return _index(answer), None
        content = _read(answer.status, body)
        if isinstance(content, Failure) and content.code != INDEX_CLEARED:
            raise Unavailable(content.text)
        return _index(answer), content


@asynccontextmanager
async def _exchange(
    client: Client,
    method: str,
    key: str,
    query: Mapping[str, str],
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> AsyncIterator[Answer]:
    target = f"/v2/keys{quote(key.rstrip('/'))}?{urlencode(query)}"
    try:
        async with client.exchange(method, target, headers=headers, body=body) as answer:
            yield answer
    except BadAnswer as error:
        raise Unavailable(str(error)) from error
    except OSError as error:
        raise Unavailable(plain_words(error)) from error


def _read(status: int, body: bytes) -> Action | Failure:
    try:
        return read_answer(body)
    except ValueError as error:
        text = body[:_SHOWN].decode(errors="replace").strip().partition("\n")[0]
        if status == _NOT_FOUND:
            raise NotOffered(f"what answers there has no etcd v2 API ({text or _NOT_FOUND})") from error
        raise Unavailable(f"HTTP status {status} and not the JSON of etcd v2: {text or 'nothing'}") from error


def _index(answer: Answer) -> int:
    value = dict(answer.headers).get("x-etcd-index", "")
    return int(value) if value.isascii() and value.isdigit() else 0
