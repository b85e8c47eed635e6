"""What a packet meets on a host beside routes: devices with what is plugged into what, and who answers for an address.

``answer`` is the one thing here that does something: it has the kernel ask, as it would for a packet.  What it learned
some time ago would not do, for whoever answered then may be gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.linux import addresses, links, wguapi
from pyflannel.linux.neighbours import (
    AF_BRIDGE,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    RTM_NEWNEIGH,
    query_fdb,
    query_neighbours,
)
from pyflannel.linux.netlink import (
    INTEGER,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Conversation,
    Request,
    attribute,
    attributes,
)
from pyflannel.linux.routes import unpack_address
from pyflannel.state import IPAddress, IPInterface, Mac, Spec, Wireguard

IFF_RUNNING: Final = 0x40
IFF_NOARP: Final = 0x80
IFLA_MASTER: Final = 10
NTF_USE: Final = 0x01
NUD_REACHABLE, NUD_PROBE, NUD_FAILED = 0x02, 0x10, 0x20
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
PATIENCE_S: Final = 0.7
"""How long a neighbour may take to answer.  The kernel asks three times, a second apart; one that is there needs no
thousandth of that, and another host's agent does not wait longer for ours."""
_STEP_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Device:
    """A network device, as far as a packet is concerned."""

    index: int
    name: str
    kind: str
    """As in ``ip link … type``; empty for hardware."""
    up: bool
    running: bool
    """Whether there is something at its other end: a cable, a port that is up, a process."""
    mtu: int
    asks: bool
    """Whether it needs a neighbour's MAC to send; point-to-point devices do not."""
    mac: Mac | None
    master: int
    """Index of the bridge it is plugged into, 0 if it is not."""
    addresses: tuple[IPInterface, ...] = ()
    spec: Spec | None = None
    """Of a tunnel: its settings."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a neighbour."""

    mac: Mac | None
    permanent: bool = False
    """Somebody wrote it down, and nobody asks."""

    @property
    def known(self) -> bool:
        """Whether a packet can be sent to it."""
        return self.mac is not None


NOBODY: Final = Answer(None)


def devices(conversation: Conversation) -> tuple[Device, ...]:
    """Every device with its addresses; ``KernelError`` if the kernel refuses the listing."""
    held: dict[int, list[IPInterface]] = {}
    for body in conversation.dump("listing addresses", addresses.query()):
        if (found := addresses.read(body)) is not None:
            held.setdefault(found.index, []).append(found.address)
    bodies = conversation.dump("listing devices", links.query_all())
    names = {device.index: device.name for device in map(links.read, bodies)}
    return tuple(_device(body, names, held) for body in bodies)


def _device(body: bytes, names: dict[int, str], held: dict[int, list[IPInterface]]) -> Device:
    found, flags = links.read(body), links.IFINFOMSG.unpack_from(body)[3]
    master = attributes(body, links.IFINFOMSG.size).get(IFLA_MASTER)
    return Device(
        found.index,
        found.name,
        found.kind,
        found.up,
        bool(flags & IFF_RUNNING),
        found.mtu,
        not flags & IFF_NOARP and found.mac is not None,
        found.mac,
        INTEGER.unpack(master)[0] if master else 0,
        tuple(held.get(found.index, ())),
        _spec(found, names),
    )


def _spec(device: links.Device, names: dict[int, str]) -> Spec | None:
    if device.kind == "tun" and wguapi.is_served(device.name):
        return Wireguard()
    if links.misfit(device) is not None:
        return None
    return links.as_item(device, names.get(links.underlay(device), "")).spec


def forwarding_entry(conversation: Conversation, index: int, mac: Mac) -> IPAddress | None:
    """The host behind which a vxlan device takes ``mac`` to be; None if it does not know, or knows no host."""
    for body in conversation.dump("listing forwarding entries", query_fdb(index)):
        family, where, *_ = NDMSG.unpack_from(body)
        found = attributes(body, NDMSG.size)
        if family == AF_BRIDGE and where == index and found.get(NDA_LLADDR) == mac and NDA_DST in found:
            return unpack_address(found[NDA_DST])
    return None


def answer(conversation: Conversation, index: int, address: IPAddress, patience_s: float = PATIENCE_S) -> Answer:
    """Who answers for ``address`` on this device, asked now unless somebody wrote it down."""
    state, mac = _entry(conversation, index, address)
    if state & (NUD_PERMANENT | NUD_NOARP):
        return Answer(mac, permanent=True)
    _have_asked(conversation, index, address, mac)
    deadline = time.monotonic() + patience_s
    while True:
        state, mac = _entry(conversation, index, address)
        if state & (NUD_REACHABLE | NUD_PERMANENT):
            return Answer(mac, bool(state & NUD_PERMANENT))
        if state & NUD_FAILED or time.monotonic() > deadline:
            return NOBODY
        time.sleep(_STEP_S)


def noted(conversation: Conversation, index: int, address: IPAddress) -> Answer:
    """What is written down of ``address`` on this device, for where nobody could be asked."""
    state, mac = _entry(conversation, index, address)
    return Answer(mac, permanent=True) if state & (NUD_PERMANENT | NUD_NOARP) else NOBODY


def _have_asked(conversation: Conversation, index: int, address: IPAddress, mac: Mac | None) -> None:
    """Have the kernel ask: for one it knows whether it still is there, else who there is."""
    family = AF_INET if address.version == 4 else AF_INET6
    if mac is None:
        body = NDMSG.pack(family, index, 0, NTF_USE, 0) + attribute(NDA_DST, address.packed)
    else:
        body = NDMSG.pack(family, index, NUD_PROBE, 0, 0) + attribute(NDA_DST, address.packed)
        body += attribute(NDA_LLADDR, mac)
    conversation.batch([Request(RTM_NEWNEIGH, body, NLM_F_CREATE | NLM_F_REPLACE)])


def _entry(conversation: Conversation, index: int, address: IPAddress) -> tuple[int, Mac | None]:
    family = AF_INET if address.version == 4 else AF_INET6
    for body in _neighbours(conversation, family, index):
        found = attributes(body, NDMSG.size)
        if found.get(NDA_DST) == address.packed:
            raw = found.get(NDA_LLADDR, b"")
            return NDMSG.unpack_from(body)[2], Mac(raw) if len(raw) == 6 else None
    return 0, None


def _neighbours(conversation: Conversation, family: int, index: int) -> Iterator[bytes]:
    for body in conversation.dump("listing neighbours", query_neighbours(family, index)):
        if NDMSG.unpack_from(body)[:2] == (family, index):
            yield body
