"""What is answered where: health in flannel's words, the status document, the metrics, and questions to peers.

    /healthz  /readyz     as flannel says them (compat §9.1); ready means that packets pass
    /status               the status document
    /metrics              the same for Prometheus, and what only programs ask for
    /ask?subnet=…&q=…     on the control socket alone: the question ``q``, in hexadecimal, put to a peer's agent

A view more is a function and a line in a table of routes; what goes on for as long as the visitor stays (server-sent
events) is a ``Response`` whose body is a generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from pyflannel.lease.model import Subnet
from pyflannel.telemetry import document, exposition, metrics
from pyflannel.telemetry.describe import describe
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.surfaces import Surface
from pyflannel.telemetry.usage import Usage

JSON: Final = "application/json"
NOT_STORED: Final = (("Cache-Control", "no-store"),)

View: TypeAlias = Callable[[Desk, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """What is at a path."""

    view: View
    any_method: bool = False
    """Else only GET and HEAD are for it."""


Routes: TypeAlias = Mapping[str, Route]


async def healthz(_desk: Desk, _request: Request) -> Response:
    """We are here."""
    return Response(200, b"flanneld is running")


async def readyz(desk: Desk, _request: Request) -> Response:
    """Whether containers can rely on the network."""
    return Response(200, b"flanneld is ready") if desk.ready else Response(503, b"flanneld is not ready yet")


async def status(desk: Desk, _request: Request) -> Response:
    """The status document."""
    return Response(200, _given_way(document.write(await describe(desk))), JSON, NOT_STORED)


async def exported(desk: Desk, _request: Request) -> Response:
    """The metrics."""
    texts = metrics.expose(_measured(desk, await describe(desk)))
    return Response(200, _given_way(text.encode() for text in texts), exposition.TYPE, NOT_STORED)


async def ask(desk: Desk, request: Request) -> Response:
    """A question put to a peer's agent, and what it says."""
    parts = desk.parts
    if parts is None or parts.ask is None:
        return Response(503, b"this agent asks its peers nothing: it is starting, or runs with -probe=false\n")
    try:
        question = bytes.fromhex(request.query.get("q", ""))
    except ValueError:
        return Response(400, b"q is a question in hexadecimal digits\n")
    wanted = request.query.get("subnet", "")
    subnet = next((each for each in parts.network.table.leases if wanted in _names(each)), None)
    if subnet is None:
        return Response(404, f"no lease for {wanted!a} is known\n".encode())
    from pyflannel.probes.errands import NoAnswer

    try:
        return Response(200, await parts.ask(subnet, question), "application/octet-stream", NOT_STORED)
    except NoAnswer as exc:
        return Response(504, f"{exc}\n".encode())


def misled(request: Request) -> Response | None:
    """The refusal for who came to this host by a name that is not its own; None for everybody else.

    A site on the Internet can have a name of its own lead to 127.0.0.1, and have a browser of this host read to it
    what is served to nobody else.
    """
    with suppress(ValueError):
        name = urlsplit(f"//{request.host}").hostname or "localhost"
        if name == "localhost" or ip_address(name):
            return None
    return Response(421, b"this is served to this host alone: ask for 127.0.0.1 or localhost\n")


_HEALTH: Final[Routes] = {"/healthz": Route(healthz, any_method=True), "/readyz": Route(readyz, any_method=True)}
_STATUS: Final[Routes] = {**_HEALTH, "/status": Route(status), "/metrics": Route(exported)}
ROUTES: Final[Mapping[Surface, Routes]] = {
    Surface.HEALTH: _HEALTH,
    Surface.STATUS: _STATUS,
    Surface.CONTROL: {**_STATUS, "/ask": Route(ask)},
}


def routes(desk: Desk, surface: Surface) -> Routes:
    """What is where on one surface."""
    if surface is Surface.STATUS and desk.settings.ui:
        from pyflannel.telemetry.page.routes import routes as page

        return {**ROUTES[surface], **page(lambda: describe(desk), lambda: desk.parts.ask if desk.parts else None)}
    return ROUTES[surface]


async def answer(desk: Desk, routes: Routes, request: Request) -> Response:
    """What is answered where these routes are."""
    route = routes.get(request.path)
    if route is None:
        return Response(404, b"404 page not found\n")
    if not route.any_method and request.method not in ("GET", "HEAD"):
        return Response(405, b"only GET and HEAD are answered here\n", headers=(("Allow", "GET, HEAD"),))
    return await route.view(desk, request)


def _measured(desk: Desk, said: Document) -> metrics.Measured:
    parts = desk.parts
    return metrics.Measured(
        document=said,
        meter=desk.meter,
        usage=Usage.now(),
        ready=desk.ready,
        tally=None if parts is None else parts.reconciler.tally,
        firewall_repairs=None if parts is None else parts.guard.repairs,
    )


async def _given_way(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """``pieces``, with a turn for everybody else after each."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


def _names(subnet: Subnet) -> tuple[str, ...]:
    """What people and programs call it."""
    return (str(subnet), *(str(net) for net in (subnet.ipv4, subnet.ipv6) if net is not None))
