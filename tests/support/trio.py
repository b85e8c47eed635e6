"""Two hosts on a switch and a third one behind a router, each with an agent and a container.

with Trio(tmp_path, CONFIG) as trio:
    trio.start()
    assert trio.reaches(trio.one, trio.three)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tests.support.machines import Switch, eventually
from tests.support.namespaces import Namespace
from tests.support.pair import Host, Pair

NEAR, FAR = "172.16.41", "172.16.42"
ROUTER = f"{NEAR}.1"


class Trio(Pair):
    """The hosts ``one`` and ``two`` of a pair, and ``three`` behind ``router``."""

    def __init__(self, home: Path, config: str) -> None:
        """Plug them in; nothing runs yet."""
        super().__init__(home)
        self.store.configure(config)
        self.far = Switch()
        self.router = Namespace("router")
        self.three = Host("host3", self.far, f"{FAR}.133", self.store, home / "host3")
        self.hosts = (*self.hosts, self.three)
        self.switch.plug(self.router, "near", f"{ROUTER}/24")
        self.far.plug(self.router, "far", f"{FAR}.1/24")
        self.router.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        for host in (self.one, self.two):
            host.space.run(f"ip route add {FAR}.0/24 via {ROUTER}")
        self.three.space.run(f"ip route add {NEAR}.0/24 via {FAR}.1")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.router.delete()
        self.far.delete()

    def start(self) -> None:
        """Start the agents, and return once all containers reach each other."""
        self._settle_in()
        for host in self.hosts:
            for peer in self.hosts:
                if peer is not host:
                    self.await_reach(host, peer)

    def await_reach(self, host: Host, peer: Host) -> None:
        """Return once the container of ``host`` gets an answer from that of ``peer``."""
        eventually(lambda: reaches(host, peer), f"{peer.target} from {host.target}\n{host.said()[-3000:]}")


def reaches(host: Host, peer: Host) -> bool:
    """Whether the container of ``host`` gets an answer from that of ``peer``."""
    try:
        host.container.run(f"ping -c 1 -W 1 {peer.target}")
    except AssertionError:
        return False
    return True


def route(host: Host, peer: Host) -> str:
    """How ``host`` sends to the containers of ``peer``, as ``ip route`` says."""
    return host.space.run(f"ip route show {peer.subnet}").strip()


def await_route(host: Host, peer: Host, wanted: str) -> None:
    """Return once ``host`` has this route to ``peer`` and no other."""
    eventually(lambda: route(host, peer) == wanted, f"{wanted!r}, not {route(host, peer)!r}\n{host.said()[-3000:]}")
