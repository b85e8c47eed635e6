"""Two hosts on a cable, each with a TUN device and a forwarder of its choice: ours, or any that takes descriptors.

with Hosts() as hosts:
    hosts.one.forward()
    hosts.two.forward_with(sys.executable, NAIVE)
    hosts.one.space.run(f"ping -c 1 {hosts.two.inner}")
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

from pyflannel.linux.netns import inside
from pyflannel.tunnel.control import Remote, listen
from pyflannel.tunnel.device import QUEUE_LENGTH, SOL_UDP, UDP_GRO, Tun, open_socket
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.peers import Endpoint
from tests.support.machines import stop
from tests.support.namespaces import Namespace, bridge, veth

NETWORK = IPv4Network("10.1.0.0/16")
DEVICE = "flannel0"
PORT = 8285
NAIVE = str(Path(__file__).with_name("tunnel_naive.py"))
CABLE_MTU = 1500
OVERHEAD = 28


class Host:
    """A namespace with ``eth0`` on the cable, and ``flannel0`` once something forwards."""

    def __init__(self, hint: str, number: int) -> None:
        self.space = Namespace(hint)
        self.outer = f"192.0.2.{number}"
        self.subnet = IPv4Network(f"10.1.{number}.0/24")
        self.inner = str(self.subnet[0])
        self.process: subprocess.Popen[bytes] | None = None
        self.tun: Tun | None = None
        self.socket: socket.socket | None = None
        self.container: Namespace | None = None

    peer: Host
    """The other one."""

    @property
    def end(self) -> tuple[Namespace, str]:
        """Where programs run that speak through the tunnel, and at which address: the container, if there is one."""
        return (self.space, self.inner) if self.container is None else (self.container, str(self.subnet[2]))

    def close(self) -> None:
        """End the forwarder and take everything away."""
        if self.process is not None:
            stop(self.process)
        self.let_go()
        self.space.delete()
        if self.container is not None:
            self.container.delete()

    def settle_in(self, mtu: int = CABLE_MTU - OVERHEAD) -> None:
        """A container behind a bridge, as Docker makes it."""
        self.container = container = Namespace("tun-c")
        gateway = str(self.subnet[1])
        self.space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        veth(self.space, "cable", container, "eth0")
        bridge(self.space, "docker0", "cable")
        for space, dev, address in ((self.space, "docker0", gateway), (container, "eth0", str(self.subnet[2]))):
            space.run(f"ip address add {address}/24 dev {dev}")
            space.run(f"ip link set {dev} mtu {mtu}")
        self.space.run(f"ip link set cable mtu {mtu}")
        container.run(f"ip route add default via {gateway}")

    def open(self, *, vnet: bool = True) -> tuple[Tun, socket.socket]:
        """Make the device and the socket as the agent does (compat §5.1)."""
        name = str(self.space.path)
        self.tun = tun = inside(name, lambda: Tun.open("flannel%d", vnet=vnet))
        self.socket = sock = inside(name, lambda: open_socket(self.outer, PORT))
        self.space.run(f"ip address add {self.inner}/32 dev {DEVICE}")
        # Without it, Linux drops our ICMP errors: their source is an address of this host.
        self.space.run(f"sysctl -qw net.ipv4.conf.{DEVICE}.accept_local=1")
        self.space.run(f"ip link set {DEVICE} up mtu {CABLE_MTU - OVERHEAD}")
        self.space.run(f"ip route add {NETWORK} dev {DEVICE} src {self.inner}")
        return tun, sock

    def let_go(self) -> None:
        """Close our own descriptors; the forwarder has others."""
        if self.tun is not None:
            os.close(self.tun.fd)
        if self.socket is not None:
            self.socket.close()
        self.tun = self.socket = None

    def forward_with(self, *command: str) -> None:
        """Forward with a program that takes the two descriptors and the peer's address, and knows no offload."""
        tun, sock = self.open(vnet=False)
        sock.setsockopt(SOL_UDP, UDP_GRO, 0)
        fds = [tun.fd, sock.fileno()]
        self.process = subprocess.Popen([*command, *map(str, fds), self.peer.outer], pass_fds=fds)
        self.let_go()

    def forward(self, control: Path, language: str = "Python", *, vnet: bool = True) -> Remote:
        """Forward with ours, reached at ``control``."""
        remote = self.launch(control, language)
        tun, sock = self.open(vnet=vnet)
        self.space.run(f"ip link set {DEVICE} txqueuelen {QUEUE_LENGTH}")
        remote.start(tun.fd, sock.fileno())
        self.let_go()
        self.tell(remote)
        return remote

    def launch(self, control: Path, language: str = "Python") -> Remote:
        """Start ours; it has nothing to forward yet."""
        with listen(control) as listener:
            fd = listener.fileno()
            command = [sys.executable, "-m", "tests.support.tunnel_forwarder", str(fd), language]
            self.process = subprocess.Popen(command, pass_fds=[fd])
            remote = Remote.connect(control)
        assert remote is not None
        return remote

    def tell(self, remote: Remote, generation: int = 1) -> None:
        """Say what an agent would."""
        remote.set_own(Own((self.subnet,), IPv4Address(self.inner)))
        remote.set_routes(generation, [(self.peer.subnet, Endpoint(IPv4Address(self.peer.outer), PORT))])


class Hosts:
    """``one`` and ``two``."""

    def __init__(self) -> None:
        self.one, self.two = Host("tun1", 1), Host("tun2", 2)
        self.one.peer, self.two.peer = self.two, self.one
        veth(self.one.space, "eth0", self.two.space, "eth0")
        for host in (self.one, self.two):
            host.space.run(f"ip address add {host.outer}/24 dev eth0")
            host.space.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in (self.one, self.two):
            host.close()
