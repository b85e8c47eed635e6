"""Network namespaces for tests: made under a unique name, gone when the ``with`` block ends.

    with Namespace("host1") as one, Namespace("host2") as two:
        veth(one, "eth0", two, "eth0")
        one.run("ip addr add 192.0.2.1/24 dev eth0")

Nothing outside the namespaces is touched: devices are created inside them, and die with them.
"""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "pfl-"
"""Every namespace of ours starts with this, so that a leak can be told from somebody else's."""


class Namespace:
    """A network namespace with the loopback device up, and nothing else in it."""

    def __init__(self, hint: str = "test") -> None:
        """Create it; ``hint`` becomes part of its name, for people reading ``ip netns``."""
        self.name = f"{PREFIX}{hint}-{secrets.token_hex(4)}"
        self.path = Path("/run/netns") / self.name
        _execute(["ip", "netns", "add", self.name])
        try:
            self.run("ip link set lo up")
        except BaseException:
            self.delete()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def delete(self) -> None:
        """Take the name away; the kernel drops the devices once the last process inside has ended."""
        if self.path.exists():
            _execute(["ip", "netns", "delete", self.name])

    def argv(self, *command: str) -> list[str]:
        """``command`` as an argument list that runs inside, for ``subprocess.Popen``."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, command: str, *, stdin: str | None = None) -> str:
        """Run one command inside (split as a shell would, but no shell) and return what it printed.

        A non-zero exit status raises ``AssertionError`` with everything it wrote.
        """
        program, *rest = shlex.split(command)
        # ip and bridge enter a namespace by themselves, five times quicker than ``ip netns exec`` does.
        inside = [program, "-n", self.name, *rest] if program in ("ip", "bridge") else self.argv(program, *rest)
        return _execute(inside, stdin)

    def shell(self, script: str) -> str:
        """Run a shell script inside, stopping at the first failure, and return what it printed."""
        return _execute(self.argv("sh", "-ec", script))

    def objects(self, command: str) -> list[dict[str, object]]:
        """What an ``ip -j …`` or ``bridge -j …`` command says, decoded; an empty answer is an empty list."""
        answer = json.loads(self.run(command) or "[]")
        # iproute2 prints an empty object for a flushed or filtered-out entry.
        return [entry for entry in answer if entry]


def veth(one: Namespace, name: str, two: Namespace, peer: str) -> None:
    """A cable between two namespaces, both ends up."""
    one.run(f"ip link add {name} type veth peer name {peer} netns {two.name}")
    one.run(f"ip link set {name} up")
    two.run(f"ip link set {peer} up")


def bridge(space: Namespace, name: str, *ports: str) -> None:
    """A bridge in ``space``, up, with the named devices plugged in."""
    space.run(f"ip link add {name} type bridge")
    for port in ports:
        space.run(f"ip link set {port} master {name}")
    space.run(f"ip link set {name} up")


def _execute(argv: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
