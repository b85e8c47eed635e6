"""A connection that breaks at the worst moment: after the server has done what was asked, before it can say so."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class FrailWire:
    """Passes bytes to a port of 127.0.0.1 and back, until ``is_done`` first says yes: then that connection is cut.

    It is asked each time the server says something, which is thrown away with the connection.  Later connections last.
    """

    def __init__(self, port: int, is_done: Callable[[], bool]) -> None:
        """Serve from the start of the ``with`` block to its end."""
        self._port, self._is_done = port, is_done
        self._cut = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop, self._stopped = socket.socketpair()
        self._ends: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._serve)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._selector.close()
        for each in (self._listener, self._stopped, *self._ends):
            each.close()
        assert self._cut, "nothing was written, so no answer was lost"

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ends:
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._port))
        self._servers.add(server)
        for one, other in ((client, server), (server, client)):
            self._ends[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            said = source.recv(_CHUNK)
            if source in self._servers and not self._cut and self._is_done():
                self._cut, said = True, b""
            if said:
                self._ends[source].sendall(said)
        except OSError:
            said = b""
        if not said:
            for each in (self._ends.pop(source), source):
                self._ends.pop(each, None)
                self._servers.discard(each)
                self._selector.unregister(each)
                each.close()
