"""Which surfaces the settings ask for, each with what it shows.  Views are imported when somebody looks at one."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from pyflannel.settings import Settings
from pyflannel.telemetry.address import control_socket
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.server import ControlSocket, Place, Port, Server

if TYPE_CHECKING:
    from pyflannel.telemetry.http import Answer, Request, Response
    from pyflannel.telemetry.views import Routes


class Surface(Enum):
    """Who looks at it, and so what it shows; ``views.ROUTES`` has the paths."""

    HEALTH = auto()
    """Whoever asks whether we live (-healthz-port)."""
    STATUS = auto()
    """Whoever watches the network (-status-port)."""
    CONTROL = auto()
    """Who administers this host (the control socket)."""


PAGE_PORT: Final = 8287
"""Where the page is served if no -status-port says otherwise."""


def surfaces(desk: Desk) -> Server:
    """All of one process; nothing is open yet."""
    return Server(((place, _answer(desk, surface)) for place, surface in _places(desk.settings)), desk.health)


def _places(settings: Settings) -> Iterator[tuple[Place, Surface]]:
    yield ControlSocket(control_socket(settings.subnet_file)), Surface.CONTROL
    if settings.healthz_port:
        yield Port(settings.healthz_ip, settings.healthz_port), Surface.HEALTH
    if port := settings.status_port or (PAGE_PORT if settings.ui else 0):
        yield Port(settings.status_ip, port), Surface.STATUS


def _answer(desk: Desk, surface: Surface) -> Answer:
    routes: Routes | None = None
    private = surface is Surface.STATUS and desk.settings.status_ip.is_loopback

    async def answer(request: Request) -> Response:
        nonlocal routes
        from pyflannel.telemetry import views

        if private and (refusal := views.misled(request)) is not None:
            return refusal
        # Made once: the page knows who listens to it.
        routes = routes or views.routes(desk, surface)
        return await views.answer(desk, routes, request)

    return answer
