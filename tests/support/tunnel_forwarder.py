"""The forwarder with the twin that a test names, whether or not the extension is installed.

python -m tests.support.tunnel_forwarder CONTROL-FD C|Python
"""

from __future__ import annotations

import socket
import sys

from pyflannel.tunnel.batch import PYTHON
from pyflannel.tunnel.forwarder import Forwarder
from tests.support.tunnel_twin import c_twin

if __name__ == "__main__":
    functions = c_twin() if sys.argv[2] == "C" else PYTHON
    assert functions is not None
    forwarder = Forwarder(socket.socket(fileno=int(sys.argv[1])), functions)
    try:
        forwarder.run()
    finally:
        forwarder.close()
