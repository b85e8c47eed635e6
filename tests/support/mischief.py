"""What a test does to a host by other means than a shell command: a program in the way, programs that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.pair import Host


def restart(host: Host) -> None:
    """Have the agent of a host begin anew."""
    if host.agent is not None and host.agent.poll() is None:
        host.stop()
    host.start()


def provide(tools: Path) -> None:
    """Put every program there that is not there yet."""
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in sorted(Path(place).iterdir()) if Path(place).is_dir() else ():
            link = tools / program.name
            if not link.is_symlink():
                link.symlink_to(program)


def withdraw(tools: Path, *words: str) -> None:
    """Take away every program that has one of these words in its name."""
    for link in tools.iterdir():
        if any(word in link.name for word in words):
            link.unlink()


class Occupant:
    """A program that has a UDP port of a host, and is none of ours."""

    def __init__(self, host: Host, port: int) -> None:
        """It is not there yet."""
        self._host, self._port = host, port
        self._process: subprocess.Popen[bytes] | None = None

    def come(self) -> None:
        """Bind it, once whoever has it has let go."""
        bind = f"s=socket.socket(2,2); s.bind(('',{self._port})); print('bound',flush=True); time.sleep(600)"
        self._process = subprocess.Popen(
            [*self._host.enter, sys.executable, "-S", "-c", f"import socket,time; {bind}"], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def go(self) -> None:
        """Let go of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
