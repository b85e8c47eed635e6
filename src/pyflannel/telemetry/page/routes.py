"""What is at which path of the page, and what a browser is allowed to make of it."""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable
from typing import Final

from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.page.events import Audience
from pyflannel.telemetry.page.rows import Ask, Rows
from pyflannel.telemetry.views import Route, Routes

SCRIPTS: Final = ("page", "build", "facts", "map", "matrix", "model", "peers", "verdict", "words")
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
}
"""What is at which path: a file in ``static``, and its kind."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # A string never becomes anything but text, even should a script of ours try.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The Content-Security-Policy: our own files, and nothing written into the page itself."""

HEADERS: Final = (
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # After an upgrade of the agent nobody is to see the old script with new events.
    ("Cache-Control", "no-cache"),
)


def routes(look: Callable[[], Awaitable[Document]], ask: Callable[[], Ask | None] = lambda: None) -> Routes:
    """The page of one agent, which ``look`` describes: to be made once, as it knows who listens.

    ``ask`` is how a peer is asked at the moment, if any can be.
    """
    audience = Audience(look, Rows(ask))

    async def events(_desk: Desk, _request: Request) -> Response:
        return audience.admit()

    return {**{path: Route(_file(*of)) for path, of in FILES.items()}, "/events": Route(events)}


def _file(name: str, kind: str) -> Callable[[Desk, Request], Awaitable[Response]]:
    async def view(_desk: Desk, _request: Request) -> Response:
        # Read again every time: it is a few kilobytes, and seldom.  This way it works out of a zip file, too.
        body = pkgutil.get_data(__package__, f"static/{name}")
        assert body is not None, "the loaders of files and of zip files can read data"
        return Response(200, body, kind, HEADERS)

    return view
