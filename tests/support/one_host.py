"""One host of a vxlan network as its agent would have it, in a namespace, with a container and a neighbour.

The other host is there as far as the underlay goes: it has its address, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pyflannel.linux.netns import inside
from tests.support.builders import OTHER_MAC, OWN_MAC
from tests.support.crossings import HERE, HOST, PEER
from tests.support.namespaces import Namespace, bridge, veth

T = TypeVar("T")


@dataclass(frozen=True)
class OneHost:
    """The host, its container ``10.2.71.2`` behind docker0, and the other host."""

    space: Namespace
    container: Namespace
    other: Namespace

    def see(self, look: Callable[[], T]) -> T:
        """What ``look`` finds on the host."""
        return inside(str(self.space.path), look)


@contextmanager
def one_host() -> Iterator[OneHost]:
    with Namespace("host") as space, Namespace("container") as container, Namespace("other") as other:
        veth(space, "ens33", other, "ens33")
        space.run(f"ip address add {HOST}/24 dev ens33")
        other.run(f"ip address add {PEER}/24 dev ens33")
        veth(space, "cable", container, "eth0")
        bridge(space, "docker0", "cable")
        space.run("ip address add 10.2.71.1/24 dev docker0")
        container.run(f"ip address add {HERE}/24 dev eth0")
        container.run("ip route add default via 10.2.71.1")
        space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        vxlan = f"id 1 dev ens33 local {HOST} dstport 8472 nolearning"
        space.run(f"ip link add flannel.1 address {OWN_MAC} mtu 1450 type vxlan {vxlan}")
        space.run("ip address add 10.2.71.0/32 dev flannel.1")
        space.run("ip link set flannel.1 up")
        space.run("ip route add 10.2.41.0/24 via 10.2.41.0 dev flannel.1 onlink")
        space.run(f"ip neigh add 10.2.41.0 lladdr {OTHER_MAC} dev flannel.1 nud permanent")
        space.run(f"bridge fdb add {OTHER_MAC} dev flannel.1 dst {PEER} self permanent")
        yield OneHost(space, container, other)
