"""A forwarder as an older pyflannel may have left it: it takes over from the one at PATH, then is of another release.

    python -m tests.support.tunnel_elder PATH

Its protocol is another one too, so that it understands nothing but what all versions do.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pyflannel
from pyflannel.tunnel import messages
from pyflannel.tunnel.batch import PYTHON
from pyflannel.tunnel.control import Remote, listen
from pyflannel.tunnel.forwarder import Forwarder

RELEASE = "0.0.1"


def take_over(path: Path, beside: Path) -> None:
    """Speak with the forwarder at ``path`` and with the one at ``beside``."""
    before, after = Remote.connect(path), Remote.connect(beside)
    assert before is not None
    assert after is not None
    with before, after:
        generation, routes = before.routes()
        after.set_own(before.hello().own)
        after.set_routes(generation, routes)
        fds = before.hand_over()
        after.start(*fds)
    for fd in fds:
        os.close(fd)
    beside.replace(path)
    pyflannel.__version__, messages.VERSION = RELEASE, 99  # type: ignore[misc]
    print("ready", flush=True)


def main(path: Path) -> None:
    """Until it has handed over."""
    beside = path.with_name("elder.sock")
    forwarder = Forwarder(listen(beside), PYTHON)
    threading.Thread(target=take_over, args=(path, beside)).start()
    try:
        forwarder.run()
    finally:
        forwarder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
