"""Whether a packet meets the conditions of an iptables rule: yes, no, or not to be told from here.

Rules of this file
  1. What is not understood is unknown, never guessed: an option nobody taught this file, a set whose members are
     elsewhere, a rate that depends on the time.  A rule with one condition that fails does not match, whatever the
     unknown ones say.
  2. The words are those of ``iptables-save``, of both variants and of ip6tables; what a person may type in addition
     (service names, ``-s`` after its ``!``) the tools never print.

A packet here is the plain one of its kind: a new TCP connection is its SYN, a new ICMP exchange an echo request, and
nobody has translated its addresses (``DNAT`` and ``SNAT`` as states are met by none).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

Known: TypeAlias = bool | None
"""An answer, or None: it cannot be told."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What rules ask about a packet.  None is "there is none" for devices and "not known" everywhere else."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    in_device: str | None
    """The device it came in by; None if this host made it."""
    out_device: str | None
    """The device it will leave by; None if it is for this host, or before that is decided."""
    protocol: str = "icmp"
    """The name or number of what it carries; ``icmp`` stands for ICMPv6 where the addresses are IPv6."""
    source_port: int | None = None
    destination_port: int | None = None
    state: str = "NEW"
    """Of its connection, in the words of ``--ctstate``."""
    mark: int | None = 0
    source_type: str | None = None
    """What the host's routes say of the source, in the words of ``-m addrtype``: LOCAL, UNICAST, …"""
    destination_type: str | None = None
    reverse_path: bool | None = None
    """Whether the way back to its source leads out where it came in (``-m rpfilter``)."""
    bridged: bool = False
    """Whether it only crosses a bridge, and rules see it because of br_netfilter."""


_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED: Final = re.compile(r"\\(.)")
_PROTOCOLS: Final[Mapping[str, int]] = {
    "all": 0,
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "vrrp": 112,
    "sctp": 132,
    "udplite": 136,
}
_ECHO: Final[Mapping[tuple[int, bool], tuple[int, str]]] = {
    (4, True): (8, "echo-request"),
    (4, False): (0, "echo-reply"),
    (6, True): (128, "echo-request"),
    (6, False): (129, "echo-reply"),
}
"""The ICMP message, by address family and whether it begins the exchange."""
_MODULES: Final = frozenset(
    (
        *("comment", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "ipv6-icmp"),
        *("multiport", "conntrack", "state", "mark", "addrtype", "physdev", "iprange"),
    )
)
"""Extensions (``-m``) of whose options some are understood."""


def words(rule: str) -> list[str]:
    """The words of a rule, what was in quotes as one word without them."""
    return [_ESCAPED.sub(r"\1", quoted) if bare == "" else bare for quoted, bare in _WORD.findall(rule)]


def protocol(name: str, version: int) -> int | None:
    """The number of a protocol of IP ``version``; None if the name means nothing to us."""
    number = int(name) if name.isdecimal() else _PROTOCOLS.get(name.lower())
    return 58 if number == 1 and version == 6 else number


def meets(conditions: list[str], packet: Packet) -> Known:
    """Whether ``packet`` meets all ``conditions``, the words of a rule without its target."""
    answer: Known = True
    for negated, option, values in _options(conditions):
        known = _one(option, values, packet)
        if known is not None and known == negated:
            return False
        answer = answer if known is not None else None
    return answer


def _options(found: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """Each option with its values, and whether a ``!`` stands before it."""
    at, end = 0, len(found)
    while at < end:
        negated = found[at] == "!"
        at += negated
        option = found[at] if at < end else "!"
        at += 1
        start = at
        # A value that begins with a dash comes only in strings, and where there are such the option is unknown anyway.
        while at < end and found[at] != "!" and not found[at].startswith("-"):
            at += 1
        # The one extension that is turned round by an option of its own.
        yield negated ^ (found[start:at] == ["rpfilter"] and "--invert" in found), option, found[start:at]


def _one(option: str, values: list[str], packet: Packet) -> Known:
    judge = _JUDGES.get(option)
    if judge is None:
        return None
    try:
        return judge(packet, *values)
    except (ValueError, TypeError):
        # Not the values this option has with us: another version's, or another extension's option of that name.
        return None


def _within(address: IPv4Address | IPv6Address, text: str) -> bool:
    """Whether the address is in ``text``, whose mask may have holes (``10.0.0.1/255.0.0.255``)."""
    network, _, mask = text.partition("/")
    bits = address.max_prefixlen
    base = ip_address(network)
    if not mask:
        wanted = (1 << bits) - 1
    elif mask.isdecimal():
        wanted = ((1 << bits) - 1) ^ ((1 << (bits - int(mask))) - 1)
    else:
        wanted = int(ip_address(mask))
    return base.version == address.version and not (int(base) ^ int(address)) & wanted


def _device(name: str | None, pattern: str) -> bool:
    if pattern.endswith("+"):
        return (name or "").startswith(pattern[:-1])
    return name == pattern


def _protocol(packet: Packet, name: str) -> Known:
    version = packet.source.version
    wanted, carried = protocol(name, version), protocol(packet.protocol, version)
    if wanted == 0:
        return True
    return None if wanted is None or carried is None else wanted == carried


def _port(port: int | None, ranges: str) -> Known:
    """Whether ``port`` is one of ``80``, ``1024:65535`` or several of these with commas between."""
    if port is None:
        return None
    for text in ranges.split(","):
        first, colon, last = text.partition(":")
        if int(first or 0) <= port <= int(last or (65535 if colon else first)):
            return True
    return False


def _any_port(packet: Packet, ranges: str) -> Known:
    either = {_port(packet.source_port, ranges), _port(packet.destination_port, ranges)}
    return True if True in either else None if None in either else False


def _flags(packet: Packet, examined: str, wanted: str) -> Known:
    has = {"NEW": {"SYN"}, "ESTABLISHED": {"ACK"}}.get(packet.state)
    return None if has is None else has & set(examined.split(",")) == set(wanted.split(",")) - {"NONE"}


def _icmp(packet: Packet, kind: str) -> Known:
    number, name = _ECHO[packet.source.version, packet.state == "NEW"]
    if kind in ("any", "255", "255/255"):
        return True
    found, _, code = kind.partition("/")
    if not found.isdecimal():
        return kind == name if kind in ("echo-request", "echo-reply") else None
    return int(found) == number and code in ("", "0")


def _mark(packet: Packet, text: str) -> Known:
    value, _, mask = text.partition("/")
    return None if packet.mark is None else packet.mark & int(mask or "0xffffffff", 0) == int(value, 0)


def _type(address: IPv4Address | IPv6Address, known: str | None, wanted: str) -> Known:
    if known is None and address.is_multicast:
        known = "MULTICAST"
    if known is None and address.is_loopback:
        known = "LOCAL"
    return None if known is None else known in wanted.split(",")


def _range(address: IPv4Address | IPv6Address, text: str) -> bool:
    first, _, last = text.partition("-")
    return int(ip_address(first)) <= int(address) <= int(ip_address(last))


def _always(packet: Packet, *_: str) -> Known:
    return True


def _never(packet: Packet, *_: str) -> Known:
    return False


_JUDGES: Final[Mapping[str, Callable[..., Known]]] = {
    "-s": lambda packet, text: _within(packet.source, text),
    "-d": lambda packet, text: _within(packet.destination, text),
    "-i": lambda packet, name: _device(packet.in_device, name),
    "-o": lambda packet, name: _device(packet.out_device, name),
    "-p": _protocol,
    "-f": _never,
    "-c": _always,
    "-m": lambda packet, module: packet.reverse_path if module == "rpfilter" else True if module in _MODULES else None,
    "--comment": _always,
    "--sport": lambda packet, text: _port(packet.source_port, text),
    "--dport": lambda packet, text: _port(packet.destination_port, text),
    "--sports": lambda packet, text: _port(packet.source_port, text),
    "--dports": lambda packet, text: _port(packet.destination_port, text),
    "--ports": _any_port,
    "--syn": lambda packet: _flags(packet, "FIN,SYN,RST,ACK", "SYN"),
    "--tcp-flags": _flags,
    "--icmp-type": _icmp,
    "--icmpv6-type": _icmp,
    "--ctstate": lambda packet, states: packet.state in states.split(","),
    "--state": lambda packet, states: packet.state in states.split(","),
    "--mark": _mark,
    "--src-type": lambda packet, kinds: _type(packet.source, packet.source_type, kinds),
    "--dst-type": lambda packet, kinds: _type(packet.destination, packet.destination_type, kinds),
    "--src-range": lambda packet, text: _range(packet.source, text),
    "--dst-range": lambda packet, text: _range(packet.destination, text),
    "--physdev-is-bridged": lambda packet: packet.bridged,
    "--invert": _always,
    "--validmark": _always,
}
"""How each option judges a packet.  An option with another number of values than its judge takes is unknown."""
