"""Whole hosts for end-to-end tests: a network and a file system of their own, on a common switch.

Programs in a machine see its own network and, where hosts differ, its own directories; they see the cgroups of the
machine we run on, so that a real dockerd runs in each of them, with nothing but the options the README gives it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.support.capabilities import SLOWNESS
from tests.support.namespaces import Namespace, bridge

EMPTY = ("/run", "/var/lib/flannel", "/var/lib/docker")
"""What is empty on a new host."""
COPIED = ("/etc", "/opt", "/usr/local")
"""What a host has like everybody, and can change for itself alone."""


class Switch(Namespace):
    """A bridge, alone in its namespace, that machines are plugged into."""

    def __init__(self) -> None:
        """An empty switch."""
        super().__init__("switch")
        bridge(self, "br0")
        self._ports = 0

    def plug(self, space: Namespace, dev: str, address: str) -> None:
        """Give ``space`` a device called ``dev`` with ``address`` on this switch."""
        self._ports += 1
        port = f"port{self._ports}"
        self.run(f"ip link add {port} type veth peer name {dev} netns {space.name}")
        self.run(f"ip link set {port} master br0 up")
        space.run(f"ip addr add {address} dev {dev}")
        space.run(f"ip link set {dev} up")


class Machine:
    """One host."""

    def __init__(self, hint: str, switch: Switch, address: str, logs: Path) -> None:
        """Plug ``ens33`` with ``address`` (CIDR) into ``switch``; what programs print goes to ``logs``."""
        self.space = Namespace(hint)
        self.address = address.partition("/")[0]
        self._hint, self._logs = hint, logs
        self._running: list[subprocess.Popen[bytes]] = []
        for path in EMPTY:
            Path(path).mkdir(parents=True, exist_ok=True)
        script = "; ".join([*(f"mount -t tmpfs tmpfs {path}" for path in EMPTY), *map(_overlay, COPIED)])
        own_mounts = ["unshare", "--mount", "--propagation", "private"]
        # Not ``ip netns exec``: that mounts a fresh /sys and so hides the cgroups, which dockerd needs.
        self._holder = subprocess.Popen(
            ["nsenter", f"--net={self.space.path}", *own_mounts, "sh", "-ec", f"{script}; echo; exec sleep 1d"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline(), f"{hint} did not come up"
        switch.plug(self.space, "ens33", address)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            stop(process)
        self._holder.kill()
        self._holder.communicate()
        self.space.delete()

    def argv(self, *command: str) -> list[str]:
        """``command`` as an argument list that runs on this machine."""
        return ["nsenter", f"--net={self.space.path}", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *command]

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program to its end and return what it printed; ``AssertionError`` if it fails."""
        done = self.attempt(*command, stdin=stdin)
        assert done.returncode == 0, (
            f"{self._hint}: {shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def attempt(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever that is."""
        return subprocess.run(self.argv(*command), input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that goes on; it is ended with the machine.  ``log(name)`` is what it has printed."""
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(self.argv(*command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._running.append(process)
        return process

    def log(self, name: str) -> str:
        """What the program spawned as ``name`` has printed so far."""
        return self._log(name).read_text(errors="replace")

    def _log(self, name: str) -> Path:
        return self._logs / f"{self._hint}-{name}.log"


def _overlay(path: str) -> str:
    """A shell command after which changes below ``path`` stay in this file system."""
    upper, work = (f"/run/changes{path}/{part}" for part in ("upper", "work"))
    options = f"lowerdir={path},upperdir={upper},workdir={work}"
    return f"mkdir -p {upper} {work}; mount -t overlay overlay -o {options} {path}"


def hold(process: subprocess.Popen[bytes]) -> None:
    """Stop it where it is; returns when none of its threads runs any more, which SIGSTOP alone does not wait for."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def stop(process: subprocess.Popen[bytes], patience: float = 20.0) -> int:
    """Ask a process to end, make it if it does not, and return its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def eventually(condition: Callable[[], object], what: str, patience: float = 20.0) -> None:
    """Wait until ``condition()`` is true; ``AssertionError`` naming ``what`` if it does not come.

    ``patience`` is in seconds of a usual machine.
    """
    patience *= SLOWNESS
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain: {what}"
        time.sleep(0.05)
