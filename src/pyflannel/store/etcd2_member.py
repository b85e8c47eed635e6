"""One member of an etcd, asked by way of its v2 API.

Rules of this file
  1. Whatever goes wrong is ``Unavailable``, in one line of plain words without secrets; a watch may also be
     ``HistoryLost``.  The three failures that are an answer (no such key, condition failed, key exists) are returned.
  2. An answer counts only if it is whole, is the v2 API's JSON, is about the key that was asked for and says how far
     the store is.  A proxy's error page, or a list cut short, must never look like an empty network.
  3. Each connection reads the certificates as they are by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import (
    CALL_S,
    CONNECT_S,
    SERVER_SAYS,
    Credentials,
    Endpoint,
    NotOffered,
    Tls,
    own_fault,
    plain_words,
    tls_context,
)
from pyflannel.store.etcd2_wire import (
    COMPARE_FAILED,
    INDEX_CLEARED,
    KEY_NOT_FOUND,
    NODE_EXISTS,
    UNAUTHORIZED,
    Action,
    Failure,
    read_answer,
)
from pyflannel.store.http1 import Answer, BadAnswer, Client, Header, Streams, basic_auth, tcp

QUORUM: Final = {"quorum": "true"}
"""Makes of a read one that no member answers from the past, or without a leader."""

_FORM: Final = ("content-type", "application/x-www-form-urlencoded")
_OK, _CREATED, _UNAUTHORIZED, _NOT_FOUND, _FAILED, _UNAVAILABLE = 200, 201, 401, 404, 412, 503
_ANSWERS: Final = {KEY_NOT_FOUND: _NOT_FOUND, COMPARE_FAILED: _FAILED, NODE_EXISTS: _FAILED}
"""Failures that are an answer, and the status that goes with each."""
_LONGEST_INDEX: Final = 19
_SHOWN: Final = 200
"""Characters of a foreign text that go into a message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a member answered."""

    endpoint: Endpoint
    index: int
    """How many changes its store had seen then."""
    content: Action | Failure
    repeated: bool = False
    """The same was asked before, and no answer came: a write may have had its effect already."""


class Member:
    """One address of etcd, and who we are to it."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None, tls: Tls, call_s: float = CALL_S) -> None:
        """Nothing is connected yet.  An answer may stall for ``call_s``."""
        self.endpoint = endpoint
        self._user = credentials.user if credentials else None
        self._tls = tls
        self._headers: tuple[Header, ...] = ()
        self._secrets: tuple[str, ...] = ()
        if credentials:
            name, value = basic_auth(credentials.user, credentials.password)
            self._headers = ((name, value),)
            self._secrets = tuple(filter(None, (value.removeprefix("Basic "), credentials.password)))
        self._client = Client(self._connect, endpoint.authority, connect_s=CONNECT_S, answer_s=call_s)

    async def reach(self) -> None:
        """Have a connection.  If this fails, then what was to be asked next surely had no effect."""
        with self._plain_errors():
            await self._client.reach()

    async def ask(
        self, method: str, key: str, query: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Reply:
        """Make a request about ``key``."""
        headers = (*self._headers, _FORM) if form else self._headers
        body = urlencode(form).encode() if form else b""
        with self._plain_errors():
            answer = await self._client.request(method, _target(key, query), headers=headers, body=body)
        content = self._read(method, key, answer.status, answer.body)
        if isinstance(content, Failure) and _ANSWERS.get(content.code) != answer.status:
            raise Unavailable(self._shown(content.text) or f"HTTP status {answer.status} without a reason")
        if isinstance(content, Action) and content.node.key.rstrip("/") != key.rstrip("/"):
            raise Unavailable(f"asked about {key}, it answered about {self._shown(content.node.key)}")
        return Reply(self.endpoint, _index(answer.headers), content)

    @asynccontextmanager
    async def wait(self, key: str, since: int) -> AsyncIterator[Waiting]:
        """Wait for the first change of what is below ``key``, from index ``since`` on."""
        query = {"wait": "true", "recursive": "true", "waitIndex": str(since)}
        with self._plain_errors():
            async with self._client.exchange("GET", _target(key, query), headers=self._headers) as answer:
                if answer.status != _OK:
                    content = self._read("GET", key, answer.status, await answer.body(CALL_S))
                    if isinstance(content, Failure):
                        lost = content.code == INDEX_CLEARED
                        raise (HistoryLost if lost else Unavailable)(self._shown(content.text))
                yield Waiting(self, answer, key)

    async def check(self) -> None:
        """``Unavailable`` unless it still answers, and has a leader, without which nothing will ever happen.

        Costs it next to nothing: neither a look at a password, which takes etcd 60 ms, nor a word with its peers.
        """
        with self._plain_errors():
            answer = await self._client.request("GET", "/v2/members/leader")
        if answer.status == _UNAVAILABLE:
            raise Unavailable("it has no leader")

    def event(self, key: str, answer: Answer, body: bytes) -> Action:
        """What a wait for ``key`` was told."""
        content = self._read("GET", key, answer.status, body)
        if isinstance(content, Failure):
            raise Unavailable(self._shown(content.text))
        return content

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def _connect(self) -> Streams:
        context = tls_context(self._tls) if self.endpoint.secure else None
        return await tcp(self.endpoint.host, self.endpoint.port, context)()

    def _read(self, method: str, key: str, status: int, body: bytes) -> Action | Failure:
        try:
            content = read_answer(body)
        except ValueError as error:
            text = self._shown(body[: 4 * _SHOWN].decode(errors="replace"))
            if status == _NOT_FOUND:
                raise NotOffered(f"what answers there has no etcd v2 API ({text or _NOT_FOUND})") from error
            raise Unavailable(f"HTTP status {status} and not the JSON of etcd v2: {text or 'nothing'}") from error
        if isinstance(content, Action) and status not in (_OK, _CREATED):
            raise Unavailable(f"HTTP status {status}, though with an answer")
        if isinstance(content, Failure) and (content.code == UNAUTHORIZED or status == _UNAUTHORIZED):
            why = "no user name is set" if self._user is None else f"user {self._user}: wrong password or no permission"
            raise Unavailable(f"{self._shown(content.text)} (to {method} {key}; {why})")
        return content

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except BadAnswer as error:
            raise Unavailable(self._shown(str(error))) from error
        except OSError as error:
            words = plain_words(error)
            rejected = self.endpoint.secure and (isinstance(error, ConnectionResetError) or SERVER_SAYS in words)
            fault = own_fault(self._tls) if rejected else ""
            raise Unavailable(f"{words}; {fault}" if fault else words) from error

    def _shown(self, text: str) -> str:
        """The first line of a foreign text, fit to be shown: some servers repeat what they were sent."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        line = text.strip().partition("\n")[0][:_SHOWN]
        return "".join(letter if letter.isprintable() else " " for letter in line).strip()


class Waiting:
    """A request that is answered when something happens."""

    def __init__(self, member: Member, answer: Answer, key: str) -> None:
        """``answer`` is that of ``member``, its body not yet read."""
        self.index = _index(answer.headers)
        """Of the member's store when the wait began.

        etcd says so at once.  What it remembered of the time before, it would have told at once too.
        """
        self._member = member
        self._answer = answer
        self._key = key

    async def news(self, quiet_s: float) -> Action | None:
        """What happened; None if nothing did for ``quiet_s`` and the member is well.  Then this may be asked again."""
        try:
            body = await self._answer.body(quiet_s)
        except TimeoutError as silence:
            if silence.errno is not None:
                raise
            await self._member.check()
            return None
        return self._member.event(self._key, self._answer, body)


def _target(key: str, query: Mapping[str, str]) -> str:
    return f"/v2/keys{quote(key)}?{urlencode(query)}"


def _index(headers: Sequence[Header]) -> int:
    value = dict(headers).get("x-etcd-index", "")
    if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_INDEX):
        raise Unavailable("an answer without the header X-Etcd-Index")
    return int(value)
