"""Devices, routes and neighbours, asked of the kernel once each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.doctor.facts import Device, Route
from pyflannel.linux import addresses, links, neighbours, routes, vxlan
from pyflannel.linux.lookup import Kind, look_up
from pyflannel.linux.netlink import INTEGER, Conversation, Request, attributes, open_socket
from pyflannel.linux.netns import Netns
from pyflannel.state import IPAddress, IPInterface, IPNetwork

IFLA_MASTER: Final = 10
LENGTH: Final = 1
"""Where a route message has the length of its destination."""


class Kernel:
    """One look at it; every method raises ``KernelError`` if the kernel refuses a listing."""

    def __init__(self, netns: Netns = None) -> None:
        """``OSError`` where there is no such namespace."""
        self._conversation = Conversation(open_socket(netns))
        self._names: dict[int, str] = {}
        self._doors: dict[tuple[str, int], tuple[int, IPAddress]] = {}

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *ending: object) -> None:
        self._conversation.close()

    def devices(self) -> tuple[Device, ...]:
        """All there are, with their addresses."""
        bodies = self._conversation.dump("listing devices", links.query_all())
        found = [links.read(body) for body in bodies]
        self._names = {each.index: each.name for each in found}
        masters = [attributes(body, links.IFINFOMSG.size).get(IFLA_MASTER, b"") for body in bodies]
        held = self._addresses()
        for each in found:
            for address in held.get(each.index, ()):
                self._doors.setdefault((each.name, address.version), (each.index, address.ip))
        return tuple(
            self._device(each, tuple(held.get(each.index, ())), self._name(master))
            for each, master in zip(found, masters, strict=True)
        )

    def routes(self, within: Iterable[IPNetwork]) -> tuple[Route, ...]:
        """Unicast routes of the main table that share addresses with one of ``within``; ``devices`` comes first."""
        wanted = tuple(within)
        return tuple(route for family in (AF_INET, AF_INET6) for route in self._routes(family, wanted))

    def neighbours(self) -> int:
        """How many IPv4 neighbours count against the kernel's limit: those that are not permanent."""
        query = Request(neighbours.RTM_GETNEIGH, neighbours.NDMSG.pack(AF_INET, 0, 0, 0, 0))
        exempt = neighbours.NUD_PERMANENT | neighbours.NUD_NOARP
        bodies = self._conversation.dump("listing neighbours", query)
        return sum(1 for body in bodies if not neighbours.NDMSG.unpack_from(body)[2] & exempt)

    def takes(self, source: IPAddress, dev: str) -> bool | None:
        """Whether a packet from ``source`` may come in by ``dev``, for the host itself; ``devices`` comes first.

        None where the device has no address of that family, or the kernel says neither.
        """
        index, here = self._doors.get((dev, source.version), (0, None))
        if here is None:
            return None
        kind = look_up(self._conversation, here, source, index).kind
        return {Kind.LOCAL: True, Kind.WRONG_WAY_IN: False, Kind.BLACKHOLE: False}.get(kind)

    def _device(self, device: links.Device, held: tuple[IPInterface, ...], master: str) -> Device:
        vni = port = None
        external = False
        if device.kind == "vxlan":
            external = any(device.settings.get(vxlan.IFLA_VXLAN_COLLECT_METADATA, b""))
            with contextlib.suppress(KeyError):
                spec = vxlan.read(device.settings, "")
                vni, port = spec.vni, spec.port
        return Device(device.name, device.kind, device.mtu, device.up, device.mac, held, master, vni, port, external)

    def _addresses(self) -> dict[int, list[IPInterface]]:
        held: dict[int, list[IPInterface]] = {}
        for body in self._conversation.dump("listing addresses", addresses.query()):
            if (found := addresses.read(body)) is not None:
                held.setdefault(found.index, []).append(found.address)
        return held

    def _routes(self, family: int, within: tuple[IPNetwork, ...]) -> Iterator[Route]:
        for body in self._conversation.dump("listing routes", routes.query(family)):
            kind, length, _, _, table, protocol, _, route_type, flags = routes.RTMSG.unpack_from(body)
            # Hundreds of thousands may be listed here: look no further than needed.
            if kind != family or table != routes.RT_TABLE_MAIN or route_type != routes.RTN_UNICAST or not length:
                continue
            if flags & routes.RTM_F_CLONED:
                continue
            found = attributes(body, routes.RTMSG.size)
            dst = routes.network(family, found.get(routes.RTA_DST, b""), length)
            dev = self._name(found.get(routes.RTA_OIF, b""))
            if dev and any(each.version == dst.version and each.overlaps(dst) for each in within):
                yield Route(dst, dev, routes.gateway(found), protocol)

    def _name(self, raw: bytes) -> str:
        return self._names.get(INTEGER.unpack(raw)[0], "") if raw else ""
