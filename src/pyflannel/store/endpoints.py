"""Where etcd is, how to trust it, and whom to ask next when one of its members fails.

Rules of this file
  1. Shared by both generations of the API; nothing here knows which one is spoken.
  2. Every text made here is for people and holds no secret.  User names and passwords inside a URL are ignored, as Go
     flanneld ignores them, and never shown.
  3. Certificates get renewed while the agent runs: a context is made from the files as they are, and is not kept
     beyond the failure of a connection.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pyflannel.store.api import Unavailable

CONNECT_S = 3.0
"""Seconds to wait for a connection."""
CALL_S = 5.0
"""Seconds to wait for an answer."""
SLOW_S = 1.0
"""Seconds after which an answer is a slow one: another member is asked first next time."""
INSIST_S = CALL_S
"""Seconds for which members that owe an answer are asked again."""
SERVER_SAYS = "the server says: "
"""Stands in ``plain_words`` before what the server gave as its reason to end TLS."""
_DEFAULT_PORT = 2379

T = TypeVar("T")


class NotOffered(Unavailable):
    """Somebody answers there, but does not speak this API.  Another API may hold what is sought."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to etcd."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that prove who is who, in PEM.  Each may be missing.

    Without ``cafile`` the system's authorities are believed.  Go flanneld ignores a lone ``cafile`` and wants
    certificate and key always (compat §3.8); here what is given is used.
    """

    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    @property
    def has_identity(self) -> bool:
        """Whether we can prove who we are."""
        return self.certfile is not None and self.keyfile is not None


NO_TLS = Tls()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of etcd."""

    host: str
    port: int
    secure: bool = False
    """Whether TLS is spoken there."""

    def __str__(self) -> str:
        """The URL."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(url: str, *, always_secure: bool = False) -> Endpoint:
    """Read ``http://host:port``, ``https://…`` or a bare ``host:port``; ``ValueError`` for anything else.

    The port is 2379 where none is given; a path is ignored.
    """
    text = url.strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"etcd endpoint {shown}: expected http:// or https://")
    try:
        port = parts.port or _DEFAULT_PORT
    except ValueError as error:
        raise ValueError(f"etcd endpoint {shown}: expected a port number from 1 to 65535") from error
    if not parts.hostname:
        raise ValueError(f"etcd endpoint {shown}: expected a host")
    return Endpoint(parts.hostname, port, always_secure or parts.scheme == "https")


def tls_context(tls: Tls) -> ssl.SSLContext:
    """A client's context, from the files as they are now; ``Unavailable`` names the file that is no use.

    TLS 1.2 at least; the server's certificate must be issued by somebody believed, for the name or address we call.
    """
    for path in (tls.cafile, tls.certfile, tls.keyfile):
        if path is not None and not os.access(path, os.R_OK):
            raise Unavailable(f"cannot read {path}: {'not permitted' if Path(path).exists() else 'no such file'}")
    try:
        context = ssl.create_default_context(cafile=tls.cafile)
    except ssl.SSLError as error:
        raise Unavailable(f"no usable CA certificate in {tls.cafile}: {_ssl_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python >= 3.13 refuses certificates that lack extensions which Go, and so every etcd of old, never asked for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.certfile is not None:

        def no_password() -> str:  # asked for an encrypted key; OpenSSL itself would ask the terminal, and wait
            raise Unavailable(f"{tls.keyfile or tls.certfile} is encrypted: expected a key without a password")

        try:
            context.load_cert_chain(tls.certfile, tls.keyfile, no_password)
        except ssl.SSLError as error:
            where = tls.certfile if tls.keyfile is None else f"{tls.certfile} and {tls.keyfile}"
            raise Unavailable(f"no usable pair of certificate and key in {where}: {_ssl_reason(error)}") from error
    return context


def own_fault(tls: Tls) -> str:
    """What may be wrong with how we prove ourselves, when a server hung up on us without a word; empty if nothing.

    Servers rarely say it: etcd closes the connection, or calls any certificate it does not like a bad one.  So OpenSSL
    judges our certificate the way a server would, with its issuer believed.
    """
    if tls.certfile is None:
        return "we showed no certificate, if it wants one"
    try:
        _show_to_ourselves(tls)
    except ssl.SSLCertVerificationError as error:
        return f"our own certificate {tls.certfile} is no good: {error.verify_message}"
    except OSError:
        return ""
    return ""


def _show_to_ourselves(tls: Tls) -> None:
    """Shake hands with ourselves in memory; ``SSLCertVerificationError`` if our certificate does not pass."""
    assert tls.certfile is not None
    judge, shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (judge, shown):
        context.load_cert_chain(tls.certfile, tls.keyfile)
    judge.load_verify_locations(tls.certfile)
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    judge.verify_mode = ssl.CERT_REQUIRED
    shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = judge.wrap_bio(there, back, server_side=True)
    client = shown.wrap_bio(back, there)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def plain_words(error: OSError) -> str:
    """What a failed connection means, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_ssl_reason(error)}"
    if isinstance(error, socket.gaierror):
        return f"no address for that name: {error.strerror}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return str(error) or "no answer in time"
    # asyncio tries every address of a name and hands back one error with all their numbers in its text.
    numbers = {error.errno} if error.errno else {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
    return " / ".join(os.strerror(number).lower() for number in sorted(numbers)) or str(error) or type(error).__name__


def _ssl_reason(error: ssl.SSLError) -> str:
    words = str(getattr(error, "reason", None) or error).replace("_", " ").lower()
    # OpenSSL names an alert by the version of TLS that first had it.
    return re.sub(r"^(sslv3|tlsv1|tlsv13) alert ", SERVER_SAYS, words)


class Rotation:
    """The members of one etcd, in the order in which they are to be asked.

    First the one that answered last; behind it the others, those that failed last at the end.  So a member that hangs
    costs its time once, not with every call.
    """

    def __init__(self, api: str, endpoints: Sequence[Endpoint]) -> None:
        """In the order given; ``ValueError`` if there is none."""
        if not endpoints:
            raise ValueError(f"{api}: expected at least one endpoint")
        self._api = api
        self._endpoints = tuple(dict.fromkeys(endpoints))
        self._order = list(self._endpoints)

    def __str__(self) -> str:
        """API and addresses, for people."""
        return f"{self._api} at {','.join(map(str, self._endpoints))}"

    async def ask(self, question: Callable[[Endpoint], Awaitable[T]], next_after_s: float | None = None) -> T:
        """The first answer to be had.

        A ``question`` raises ``Unavailable`` for "not here": the next one is asked.  When none is left, ``Unavailable``
        (``NotOffered`` if all said so) tells what came back from each.  Any other exception ends the round.

        With ``next_after_s`` the next one is asked, too, when there was no answer for so many seconds, and then for
        twice as many; when all were asked, for a while those again that owe an answer.  So a request may be carried out
        twice, even at the same time.
        """
        loop = asyncio.get_running_loop()
        pause, insist_until = next_after_s, loop.time() + INSIST_S
        failures: dict[Endpoint, Unavailable] = {}
        waiting = list(self._order)
        asked: dict[asyncio.Task[T], tuple[Endpoint, float]] = {}
        try:
            while waiting or asked:
                if waiting:
                    endpoint = waiting.pop(0)
                    asked[_asking(question, endpoint)] = endpoint, loop.time()
                insists = pause is not None and len(self._order) > 1 and loop.time() < insist_until
                timeout = pause if waiting or insists else None
                done, _ = await asyncio.wait(asked, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not done and pause is not None:
                    pause *= 2
                    waiting = waiting or [_longest_owing(asked.values())]
                for task in done:
                    endpoint, asked_at = asked.pop(task)
                    error = task.exception()
                    if error is None:
                        self._rank(endpoint, loop.time() - asked_at, [slower for slower, _ in asked.values()])
                        return task.result()
                    if not isinstance(error, Unavailable):
                        raise error
                    failures[endpoint] = error
                    self.avoid(endpoint)
        finally:
            await _given_up(asked)
        kind = NotOffered if all(isinstance(failure, NotOffered) for failure in failures.values()) else Unavailable
        texts = [f"at {endpoint}: {failures[endpoint]}" for endpoint in self._endpoints]
        raise kind(f"{self._api} {'; '.join(texts)}") from failures[self._endpoints[-1]]

    def avoid(self, endpoint: Endpoint) -> None:
        """Ask all others first, from now on."""
        self._order.remove(endpoint)
        self._order.append(endpoint)

    def _rank(self, endpoint: Endpoint, took_s: float, slower: Iterable[Endpoint]) -> None:
        for each in slower:
            self.avoid(each)
        self._order.remove(endpoint)
        self._order.insert(0 if took_s < SLOW_S else len(self._order), endpoint)


def _longest_owing(asked: Iterable[tuple[Endpoint, float]]) -> Endpoint:
    latest = dict(asked)
    return min(latest, key=lambda endpoint: latest[endpoint])


def _asking(question: Callable[[Endpoint], Awaitable[T]], endpoint: Endpoint) -> asyncio.Task[T]:
    async def ask() -> T:
        return await question(endpoint)

    return asyncio.get_running_loop().create_task(ask(), name=f"ask {endpoint}")


async def _given_up(tasks: Iterable[asyncio.Task[T]]) -> None:
    """Want no answer any more; returns when all have ended."""
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
