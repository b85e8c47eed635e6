"""A forwarder in a thread of the test."""

from __future__ import annotations

import threading
from types import TracebackType

from pyflannel.tunnel.forwarder import Forwarder


class Running:
    """Runs from the start of the ``with`` block until it has been told to stop, which must have happened by its end."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._thread = threading.Thread(target=self._run, name="forwarder")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the forwarder was not told to stop"

    def _run(self) -> None:
        try:
            self._forwarder.run()
        finally:
            self._forwarder.close()
