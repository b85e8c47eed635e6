"""Where etcd is, how to trust it, and whom to ask next when one of its members fails.

Rules of this file
  1. Shared by both generations of the API; nothing here knows which one is spoken.
  2. Every text made here is for people and holds no secret.  User names and passwords inside a URL are ignored, as Go
     flanneld ignores them, and never shown.
  3. Certificates get renewed while the agent runs: a context is made from the files as they are, and is not kept
     beyond the failure of a connection.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pyflannel.store.api import Unavailable

CONNECT_S = 3.0
"""Seconds to wait for a connection."""
CALL_S = 5.0
"""Seconds to wait for an answer."""
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
        try:
            context.load_cert_chain(tls.certfile, tls.keyfile)
        except ssl.SSLError as error:
            where = tls.certfile if tls.keyfile is None else f"{tls.certfile} and {tls.keyfile}"
            raise Unavailable(f"no usable pair of certificate and key in {where}: {_ssl_reason(error)}") from error
    return context


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
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()


class Rotation:
    """Several members of one etcd, and which of them answered last."""

    def __init__(self, api: str, endpoints: Sequence[Endpoint]) -> None:
        """Begin with the first; ``ValueError`` if there is none."""
        if not endpoints:
            raise ValueError(f"{api}: expected at least one endpoint")
        self._api = api
        self._endpoints = tuple(dict.fromkeys(endpoints))
        self._first = 0

    def __str__(self) -> str:
        """API and addresses, for people."""
        return f"{self._api} at {','.join(map(str, self._endpoints))}"

    async def ask(self, question: Callable[[Endpoint], Awaitable[T]]) -> T:
        """The first answer to be had, beginning at the endpoint that answered last.

        A ``question`` raises ``Unavailable`` for "not here": the next one is asked.  When none is left, ``Unavailable``
        (``NotOffered`` if all said so) tells what came back from each.  Any other exception ends the round.
        """
        failures: list[Unavailable] = []
        texts: list[str] = []
        count = len(self._endpoints)
        for index in [(self._first + step) % count for step in range(count)]:
            endpoint = self._endpoints[index]
            try:
                answer = await question(endpoint)
            except Unavailable as failure:
                failures.append(failure)
                texts.append(f"{endpoint}: {failure}")
            else:
                self._first = index
                return answer
        kind = NotOffered if all(isinstance(failure, NotOffered) for failure in failures) else Unavailable
        raise kind(f"{self._api} at {'; at '.join(texts)}") from failures[-1]

    def avoid(self, endpoint: Endpoint) -> None:
        """Begin the next round after this one: it answered, and then failed."""
        if self._endpoints[self._first] == endpoint:
            self._first = (self._first + 1) % len(self._endpoints)
