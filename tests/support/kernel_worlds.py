"""Two kernels for one contract suite, each with the same neighbourhood and somebody else at work in it.

In both there are ``eth0`` and ``eth1`` to send packets through, and a ``docker0`` with a route of somebody's; all of
these are foreign, and ``foreign()`` tells whether anything about them has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import Protocol

import pytest

from pyflannel.diff import Put
from pyflannel.linux.kernel import Kernel, LinuxKernel
from pyflannel.linux.spelling import spell
from pyflannel.state import Address, FdbEntry, Item, Link, Route
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.namespaces import Namespace, bridge

TAKEN = (Route(ip_network("10.2.99.0/24"), "docker0"), Route(ip_network("fd00:2:99::/64"), "docker0"))
"""Routes of somebody's, to destinations we might want."""


class World(Protocol):
    """A kernel, and what others do to it."""

    @property
    def kernel(self) -> Kernel:
        """The one under test."""
        ...

    def intrude(self, item: Item) -> None:
        """Somebody adds this, beside what is there."""
        ...

    def delete_device(self, name: str) -> None:
        """Somebody deletes a device of ours."""
        ...

    def take_down(self, name: str) -> None:
        """Somebody sets a device of ours down."""
        ...

    def rename_device(self, old: str, new: str) -> None:
        """Somebody gives a device of ours another name."""
        ...

    def alter(self, link: Link) -> None:
        """Somebody sets the device of that name up like this."""
        ...

    def unplug(self, name: str) -> None:
        """Somebody takes away a device that is none of ours."""
        ...

    def plug(self, name: str) -> None:
        """A device like ``eth0`` appears, up."""
        ...

    def occupy(self, name: str) -> None:
        """Somebody makes a bridge of this name."""
        ...

    def foreign(self) -> frozenset[str]:
        """Everything that is none of ours, in some form that can be compared."""
        ...


class FakeWorld:
    """The kernel in memory."""

    def __init__(self) -> None:
        self.kernel = FakeKernel(Hardware("eth0"), Hardware("eth1"), Hardware("docker0"))
        self.kernel.intrude(Address("eth0", ip_interface("192.0.2.1/24")), *TAKEN)

    def intrude(self, item: Item) -> None:
        self.kernel.intrude(item)

    def delete_device(self, name: str) -> None:
        self.kernel.delete_device(name)

    def take_down(self, name: str) -> None:
        self.kernel.take_down(name)

    def rename_device(self, old: str, new: str) -> None:
        self.kernel.rename_device(old, new)

    def alter(self, link: Link) -> None:
        self.kernel.alter(link)

    def unplug(self, name: str) -> None:
        self.kernel.unplug(name)

    def plug(self, name: str) -> None:
        self.kernel.plug(Hardware(name))

    def occupy(self, name: str) -> None:
        self.kernel.plug(Hardware(name))

    def foreign(self) -> frozenset[str]:
        return frozenset(str(item) for item in self.kernel.items if "flannel" not in str(item))


class LinuxWorld:
    """The kernel of this machine, in a namespace of its own."""

    def __init__(self, space: Namespace, kernel: LinuxKernel) -> None:
        self.kernel, self._space = kernel, space
        for name in ("eth0", "eth1"):
            self.plug(name)
        space.run("ip address add 192.0.2.1/24 dev eth0")
        bridge(space, "docker0")
        for item in TAKEN:
            space.run(spell(Put(item)))

    def intrude(self, item: Item) -> None:
        # ip and bridge refuse to add to a taken slot, but will append to it.
        appended = isinstance(item, Route) or (isinstance(item, FdbEntry) and not item.mac.is_unicast)
        self._space.run(spell(Put(item)).replace(" add ", " append ") if appended else spell(Put(item)))

    def delete_device(self, name: str) -> None:
        self._space.run(f"ip link delete {name}")

    def take_down(self, name: str) -> None:
        self._space.run(f"ip link set {name} down")

    def rename_device(self, old: str, new: str) -> None:
        try:
            self._space.run(f"ip link set {old} name {new}")
        except AssertionError:
            # Kernels before 6.2 rename only what is down.
            for change in ("down", f"name {new}"):
                self._space.run(f"ip link set {old} {change}")
            self._space.run(f"ip link set {new} up")

    def alter(self, link: Link) -> None:
        # ip refuses both in one command, as the kernel does.
        common, settings = spell(Put(link, link)).split(" type ")
        self._space.run(common)
        self._space.run(f"ip link set {link.name} type {settings}")

    def unplug(self, name: str) -> None:
        self._space.run(f"ip link delete {name}")

    def plug(self, name: str) -> None:
        self._space.run(f"ip link add {name} up type veth peer name {name}-far")
        self._space.run(f"ip link set {name}-far up")

    def occupy(self, name: str) -> None:
        self._space.run(f"ip link add {name} up type bridge")

    def foreign(self) -> frozenset[str]:
        listings = ("ip -o link", "ip -o address", "ip route show table all", "ip -6 route show table all", "ip neigh")
        lines: Iterable[str] = "\n".join(self._space.run(listing) for listing in listings).splitlines()
        # An address that is still being checked for duplicates, and a link that is coming up, change by themselves.
        quiet = (line for line in lines if "flannel" not in line and "fe80:" not in line and "ff00:" not in line)
        return frozenset(line for line in quiet if not line.startswith(("local", "anycast", "multicast", "broadcast")))


@contextmanager
def linux_world() -> Iterator[World]:
    """A fresh namespace with a ``LinuxKernel`` in it, gone afterwards."""
    with Namespace("kernel") as space, LinuxKernel(space.name) as kernel:
        yield LinuxWorld(space, kernel)


def each_kernel(kind: str) -> Callable[..., Iterator[World]]:
    """The fixture ``world``: the kernel in memory and, if it knows devices of ``kind``, this machine's, in turn."""
    real = pytest.param("linux", marks=pytest.mark.needs("root", "netns", kind, "veth", "bridge"))

    @pytest.fixture(params=["fake", real])
    def world(request: pytest.FixtureRequest) -> Iterator[World]:
        if request.param == "fake":
            yield FakeWorld()
        else:
            with linux_world() as made:
                yield made

    return world
