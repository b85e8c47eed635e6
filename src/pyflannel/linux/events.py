"""What happens to our devices, and to the one below them, as the kernel tells it (rtnetlink(7), multicast groups).

Rules of this file
  1. It listens on a socket of its own, never on one that asks questions (``netlink``, rule 2).
  2. The kernel sorts out what is none of our business (``eventfilter``), so that somebody else's thousand containers
     wake nobody here.
  3. It says what was seen and judges nothing: whether that is news is said in ``pyflannel.sighting``.
  4. Whenever it may have missed something it says so: after an overrun, and of a device that was made anew, because
     until its index was known nobody listened to what happened on it.

Events of the underlay come as ``Changed``, and those of addresses only if something changed: routers have the kernel
repeat an address every few minutes.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Iterator
from typing import Final

from pyflannel.linux import addresses, links, neighbours, routes
from pyflannel.linux.errors import KernelError
from pyflannel.linux.eventfilter import Interest, attach, program
from pyflannel.linux.netlink import (
    DATAGRAM,
    INTEGER,
    NLM_F_REPLACE,
    Conversation,
    Message,
    attributes,
    messages,
    open_socket,
)
from pyflannel.linux.netns import Netns
from pyflannel.linux.reader import Reader
from pyflannel.sighting import Changed, Gone, Lost, Replaced, Seen, Sighting
from pyflannel.state import PROTO_FLANNEL, Address, Link, Scope

RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 3, 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 9, 11
GROUPS: Final = sum(
    1 << (group - 1)
    for group in (
        RTNLGRP_LINK,
        RTNLGRP_NEIGH,
        RTNLGRP_IPV4_IFADDR,
        RTNLGRP_IPV4_ROUTE,
        RTNLGRP_IPV6_IFADDR,
        RTNLGRP_IPV6_ROUTE,
    )
)
RECEIVE_BUFFER: Final = 4 << 20
"""Bytes; some 4,000 events, as the kernel counts them."""
AT_ONCE: Final = 1024
"""Messages read before other tasks get their turn: about 10 ms."""


class KernelEvents:
    """The events of one network namespace."""

    def __init__(self, netns: Netns = None, *, muted: Iterable[int] = (), receive_buffer: int = RECEIVE_BUFFER) -> None:
        """Listen from now on, to nothing until ``watch``.

        ``muted`` are netlink ports of our own (``LinuxKernel.port``): what they add or change is passed over in the
        kernel, apart from devices, so that we need not be told of thousands of peers we program ourselves.
        ``OSError`` where the kernel does not let us listen.
        """
        self._netns, self._muted = netns, frozenset(muted)
        self._scope, self._others, self._led = Scope(), frozenset[str](), frozenset[str]()
        self._socket = open_socket(netns, receive_buffer)
        self._conversation = Conversation(open_socket(netns))
        try:
            attach(self._socket, program(Interest()))
            self._socket.bind((0, GROUPS))
        except OSError:
            self.close()
            raise
        self._ours: dict[int, str] = {}
        self._below: dict[int, str] = {}
        self._borrowed: dict[int, str] = {}
        self._known: dict[tuple[object, ...], object] = {}
        """What was last said of the others, so as to say it once."""

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to tell; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening; closing twice is fine."""
        self._socket.close()
        self._conversation.close()

    def watch(self, scope: Scope, others: Iterable[str] = (), led: Iterable[str] = ()) -> None:
        """Tell of the devices in ``scope`` and all on them, and of ``others`` and their addresses, from now on.

        ``led`` are those of the others of which the routes are told as well, but for ours.
        Look at the kernel after this, not before: then nothing falls between.  There is no need to call again when a
        device is made anew.  ``KernelError`` if the kernel does not say which devices there are.
        """
        self._scope, self._others, self._led = scope, frozenset(others), frozenset(led)
        # By name first, so that a device which appears while we ask for those that are there is not missed.
        self._attach()
        reader = Reader(self._conversation, self._netns)
        ours = {name: reader.device(name, scope) for name in scope.devices}
        below = {name: reader.device(name, Scope()) for name in self._others}
        borrowed = {name: reader.device(name, Scope()) for name in scope.borrowed}
        self._ours = {device.index: name for name, device in ours.items() if device is not None}
        self._borrowed = {device.index: name for name, device in borrowed.items() if device is not None}
        self._below = {device.index: name for name, device in below.items() if device is not None}
        self._known = {(device.index,): _facts(device) for device in below.values() if device is not None}
        self._attach()

    async def wait(self) -> tuple[Sighting, ...]:
        """What was seen since the last return, as soon as there is something.  Giving up waiting loses nothing.

        A great many come in several returns.  One may wait at a time.  ``KernelError`` as in ``watch``, which an
        overrun calls for.
        """
        while True:
            await self._readable()
            if sightings := self.heard():
                return sightings

    def heard(self) -> tuple[Sighting, ...]:
        """The same without waiting: nothing, if nothing was seen."""
        sightings: list[Sighting] = []
        for _ in range(AT_ONCE):
            try:
                datagram, (sender, _groups) = self._socket.recvfrom(DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Among what was lost may be that a device was made anew.
                self.watch(self._scope, self._others, self._led)
                return (Lost(),)
            # Only the kernel is port 0.
            if sender == 0:
                for message in messages(datagram):
                    sightings += self._sightings(message)
        return tuple(sightings)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._socket)

    def _attach(self) -> None:
        names = self._scope.devices | self._others
        interest = Interest(
            ours=frozenset(self._ours),
            others=frozenset(self._below),
            borrowed=frozenset(self._borrowed),
            led=frozenset(index for index, name in self._below.items() if name in self._led),
            names=names,
            muted=self._muted,
        )
        attach(self._socket, program(interest))

    def _sightings(self, message: Message) -> Iterator[Sighting]:
        match message.type:
            case links.RTM_NEWLINK | links.RTM_DELLINK:
                return self._of_link(links.read(message.body), gone=message.type == links.RTM_DELLINK)
            case addresses.RTM_NEWADDR | addresses.RTM_DELADDR:
                return self._of_address(message.body, gone=message.type == addresses.RTM_DELADDR)
            case neighbours.RTM_NEWNEIGH | neighbours.RTM_DELNEIGH:
                return self._of_neighbour(message.body, gone=message.type == neighbours.RTM_DELNEIGH)
            case routes.RTM_NEWROUTE | routes.RTM_DELROUTE:
                return self._of_route(message, gone=message.type == routes.RTM_DELROUTE)
        return iter(())

    def _of_link(self, device: links.Device, gone: bool) -> Iterator[Sighting]:
        for known, names in ((self._ours, self._scope.devices), (self._below, self._others)):
            name = known.get(device.index)
            if device.name in names and device.name != name and not gone:
                yield from self._appeared(device, known)
            elif name is not None:
                if gone:
                    del known[device.index]
                    self._attach()
                yield from self._changed(device, name, gone) if known is self._below else self._seen(device, name, gone)

    def _appeared(self, device: links.Device, known: dict[int, str]) -> Iterator[Sighting]:
        """A device has one of our names, and had not: it was made, or renamed."""
        for index in [index for index, name in known.items() if name == device.name]:
            del known[index]
        known[device.index] = device.name
        if device.name in self._scope.borrowed:
            others = {index: name for index, name in self._borrowed.items() if name != device.name}
            self._borrowed = {**others, device.index: device.name}
        self._known[device.index,] = _facts(device)
        self._attach()
        yield Changed(device.name)

    def _changed(self, device: links.Device, name: str, gone: bool) -> Iterator[Sighting]:
        if not gone and self._known.get((device.index,)) == _facts(device):
            return
        if gone:
            self._known = {key: value for key, value in self._known.items() if key[0] != device.index}
        else:
            self._known[device.index,] = _facts(device)
        yield Changed(name)

    def _seen(self, device: links.Device, name: str, gone: bool) -> Iterator[Sighting]:
        if gone or device.name != name:
            yield Gone((Link, name))
            return
        try:
            yield Seen(Reader(self._conversation, self._netns).link(device))
        except KernelError:
            yield Changed(name)

    def _of_address(self, body: bytes, gone: bool) -> Iterator[Sighting]:
        found = addresses.read(body)
        if found is None:
            return
        if found.index in self._ours:
            item = Address(self._ours[found.index], found.address)
            yield Gone(item.key) if gone else Seen(item)
        elif found.index in self._below:
            place = (found.index, found.address)
            if gone or self._known.get(place) != found.flags:
                yield Changed(self._below[found.index])
            if gone:
                self._known.pop(place, None)
            else:
                self._known[place] = found.flags

    def _of_neighbour(self, body: bytes, gone: bool) -> Iterator[Sighting]:
        _, index, _, _, _ = neighbours.NDMSG.unpack_from(body)
        dev = self._ours.get(index)
        if dev is None:
            return
        item = neighbours.read_neighbour(body, index, dev) or neighbours.read_fdb(body, index, dev)
        if item is not None and not gone:
            yield Seen(item)
        elif (key := neighbours.slot(body, dev)) is not None:
            yield Gone(key)

    def _of_route(self, message: Message, gone: bool) -> Iterator[Sighting]:
        body = message.body
        found = attributes(body, routes.RTMSG.size)
        if message.flags & NLM_F_REPLACE:
            family, length = body[0], body[1]
            dst = routes.network(family, found.get(routes.RTA_DST, b""), length)
            yield Replaced(dst, routes.metric(found))
        for index, dev in (self._ours | self._borrowed).items():
            for route in routes.read(body, index, dev):
                if index in self._ours or route.protocol == PROTO_FLANNEL:
                    yield Gone(route) if gone else Seen(route)
        for index, dev in self._below.items():
            # Our own make no difference to where else it leads.
            if dev in self._led and found.get(routes.RTA_OIF) == INTEGER.pack(index) and body[5] != PROTO_FLANNEL:
                yield Changed(dev)


def _facts(device: links.Device) -> tuple[object, ...]:
    """What about a device below ours is of interest."""
    return device.name, device.mtu, device.up
