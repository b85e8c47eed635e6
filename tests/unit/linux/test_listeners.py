from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pyflannel.linux.listeners import listener

LISTEN = """
import socket, sys, time
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
made.listen()
print(flush=True)
time.sleep(600)
"""


def test_who_listens_is_found_even_while_it_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "there"
    with subprocess.Popen([sys.executable, "-c", LISTEN, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        path.rename(tmp_path / "elsewhere")
        found = listener(path)
        assert found is not None
        signal.pidfd_send_signal(found, signal.SIGKILL)
        assert select.select([found], [], [], 20)[0]
        os.close(found)
        assert process.wait() == -signal.SIGKILL
    assert listener(path) is None


def test_we_ourselves_are_nobody_to_be_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / "ours"))
        ours.listen()
        assert listener(tmp_path / "ours") is None


def test_where_nobody_listens_nobody_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "bound"))
        assert listener(tmp_path / "bound") is None
    assert listener(tmp_path / "nothing") is None
