"""Leases as the store spells them: the last part of the key, and the JSON of the value (compat §3.1, §3.2).

    10.1.5.0-24                         {"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",
                                         "BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}
    10.12.13.0-24&fd00:12:13::-56       both families
    0.0.0.0-0&fd00:12:13::-56           IPv6 alone: Go has no way to say "no IPv4" in a key (compat §3.5)

Rules of this file
  1. What we write is what Go flannel writes, byte for byte.
  2. What others wrote is read or is a ``BadRecord``.  No input raises anything else, or takes more than a moment.
  3. What a backend published is not ours to understand: it passes through as the text its writer chose.
  4. Records in the plainest spelling, as nearly all are, are read by one pattern each.  It is there for speed alone (a
     list of ten thousand takes 0.1 s less): whatever it matches, the general way would read the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from sys import intern
from typing import Final, TypeVar

from pyflannel.lease.fields import JSON, kind, refuse_constant, refuse_deep
from pyflannel.lease.model import Attrs, JSONText, Subnet

A = TypeVar("A", IPv4Address, IPv6Address)

LONGEST_VALUE: Final = 64 * 1024
"""Characters.  A real record has a few hundred; this leaves room for what an extension backend may publish."""
LONGEST_TYPE: Final = 64
"""Characters of ``BackendType``, which log lines repeat."""

_SHOWN: Final = 80
"""How many characters of a wrong key or address a message repeats."""

_NO_IPV4: Final = "0.0.0.0-0"
_NAME: Final = re.compile(r"([0-9.]{7,15})-([0-9]{1,2})(?:&([0-9a-f:]{2,39})-([0-9]{1,3}))?")
_LONGEST_PREFIX: Final = {4: 31, 6: 127}
"""Go reads the prefix length into five and seven bits."""
_EXAMPLE: Final = {"PublicIP": "172.16.41.131", "PublicIPv6": "fd00:41::131"}

_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}"
_TEXT: Final = r'"[ !#-\[\]-~]*"'
_FLAT_OBJECT: Final = rf"\{{(?:{_TEXT}:(?:{_TEXT}|0|[1-9][0-9]{{0,15}})(?:,(?=\")|(?=\}})))*\}}"
_PLAIN_NAME: Final = re.compile(rf"{_IPV4}-([1-9]|[12][0-9]|3[01])")
_PLAIN_VALUE: Final = re.compile(
    rf'\{{"PublicIP":"{_IPV4}"(?:,"PublicIPv6":null)?'
    rf'(?:,"BackendType":"([a-z-]{{0,{LONGEST_TYPE}}})")?(?:,"BackendData":({_FLAT_OBJECT}))?\}}'
)

_START: Final = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*(\}[ \t\n\r]*)?")
_KEY: Final = re.compile(r'("(?:[^"\\\x00-\x1f]|\\.)*")[ \t\n\r]*:[ \t\n\r]*')
_AFTER_VALUE: Final = re.compile(r"[ \t\n\r]*(?:,[ \t\n\r]*|(\})[ \t\n\r]*)")


class BadRecord(ValueError):
    """A record nobody can use; the message says what is wrong with it.  Skip it, tell people, harm nobody."""


def subnet_name(subnet: Subnet) -> str:
    """The last part of the key of the lease for ``subnet``."""
    ipv4 = _NO_IPV4 if subnet.ipv4 is None else _net_name(subnet.ipv4)
    return ipv4 if subnet.ipv6 is None else f"{ipv4}&{_net_name(subnet.ipv6)}"


def parse_subnet_name(key: str) -> Subnet:
    """The subnet that a key is about, be it whole or what follows ``subnets/``; ``BadRecord`` if it names none.

    Exactly the text that ``subnet_name`` makes is accepted.  Go reads more: host bits (``10.1.5.7-24``), leading
    zeros, uncompressed IPv6, characters before the first digit.  But each of those would be a second key for one
    subnet, and compare-and-set on keys is all that keeps a subnet from having two owners.  For the same reason a key
    further down, such as ``subnets/old/10.1.5.0-24``, names none.
    """
    name = key[key.rfind("/") + 1 :]
    if name != key and not key.endswith(f"/subnets/{name}"):
        raise BadRecord(f"key {_shown(key)} does not lie in subnets/ itself: expected one like subnets/10.1.5.0-24")
    plain = _PLAIN_NAME.fullmatch(name)
    if plain is not None:
        *octets, length = plain.groups()
        number = _number(octets)
        if number & (0xFFFFFFFF >> int(length)) == 0:
            return Subnet(IPv4Network((number, int(length))))
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadRecord(f"key {_shown(name)} does not name a subnet: expected one like 10.1.5.0-24")
    ipv4, ipv4_len, ipv6, ipv6_len = match.groups()
    try:
        subnet = Subnet(
            None if name.startswith(_NO_IPV4) else IPv4Network((ipv4, int(ipv4_len))),
            IPv6Network((ipv6, int(ipv6_len))) if ipv6 else None,
        )
    except ValueError as exc:
        raise BadRecord(f"key {_shown(name)} does not name a subnet: {exc}") from None
    for net in (subnet.ipv4, subnet.ipv6):
        if net is not None and not 0 < net.prefixlen <= _LONGEST_PREFIX[net.version]:
            raise BadRecord(f"key {_shown(name)} names {net}: expected a subnet")
    if (expected := subnet_name(subnet)) != name:
        raise BadRecord(f"key {_shown(name)} spells its subnet unusually: expected {expected}")
    return subnet


def encode_attrs(attrs: Attrs, *, null_ipv6: bool = True) -> str:
    """The value of a lease, as flannel since v0.15 writes it.

    ``null_ipv6=False`` writes what came before: no ``PublicIPv6`` where there is none.
    """
    parts = [f'"PublicIP":"{attrs.public_ip or "0.0.0.0"}"']
    if attrs.public_ipv6 is not None:
        parts.append(f'"PublicIPv6":"{attrs.public_ipv6}"')
    elif null_ipv6:
        parts.append('"PublicIPv6":null')
    if attrs.backend_type:
        parts.append(f'"BackendType":{json.dumps(attrs.backend_type)}')
    if attrs.backend_data is not None:
        parts.append(f'"BackendData":{attrs.backend_data}')
    if attrs.backend_v6_data is not None:
        parts.append(f'"BackendV6Data":{attrs.backend_v6_data}')
    return "{" + ",".join(parts) + "}"


def decode_attrs(text: str) -> Attrs:
    """Read the value of a lease, of any era and with keys in any case; ``BadRecord`` if it is not one.

    An address that is missing, ``null`` or all zeros is None.
    """
    if len(text) > LONGEST_VALUE:
        raise BadRecord(f"value of {len(text)} characters: expected at most {LONGEST_VALUE}")
    plain = _PLAIN_VALUE.fullmatch(text)
    if plain is not None:
        *octets, backend_type, data = plain.groups()
        number = _number(octets)
        return Attrs(IPv4Address(number) if number else None, None, intern(backend_type or ""), data)
    values: dict[str, JSON] = {}
    spelled: dict[str, JSONText] = {}
    try:
        refuse_deep(text)
        for name, value, raw in _members(text):
            values[name.casefold()], spelled[name.casefold()] = value, raw
    except ValueError as exc:
        raise BadRecord(f"value is not a JSON object: {exc}") from None
    return Attrs(
        public_ip=_address(values, "PublicIP", IPv4Address),
        public_ipv6=_address(values, "PublicIPv6", IPv6Address),
        backend_type=_backend_type(values),
        backend_data=_raw(spelled, "BackendData"),
        backend_v6_data=_raw(spelled, "BackendV6Data"),
    )


def _number(octets: list[str]) -> int:
    """An IPv4 address as one number."""
    first, second, third, fourth = octets
    return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)


def _net_name(net: IPv4Network | IPv6Network) -> str:
    return f"{net.network_address}-{net.prefixlen}"


def _text(values: Mapping[str, JSON], name: str) -> str | None:
    value = values.get(name.casefold())
    # What cannot be printed cannot be a name of anything, and has no business in a log line.
    if value is None or (isinstance(value, str) and value.isprintable()):
        return value
    raise BadRecord(f"{name} holds {kind(value)}: expected a plain text")


def _backend_type(values: Mapping[str, JSON]) -> str:
    text = _text(values, "BackendType") or ""
    if len(text) > LONGEST_TYPE:
        raise BadRecord(f"BackendType has {len(text)} characters: expected at most {LONGEST_TYPE}")
    return text


def _address(values: Mapping[str, JSON], name: str, parse: Callable[[str], A]) -> A | None:
    text = _text(values, name)
    if text is None:
        return None
    try:
        address = parse(text)
    except ValueError:
        raise BadRecord(f"{name} is {_shown(text)}: expected an address like {_EXAMPLE[name]}") from None
    if "%" in text:
        raise BadRecord(f"{name} is {_shown(text)}: expected an address without a zone, which means nothing elsewhere")
    return address if int(address) else None


def _raw(spelled: Mapping[str, JSONText], name: str) -> JSONText | None:
    raw = spelled.get(name.casefold())
    return None if raw == "null" else raw


_DECODER: Final = json.JSONDecoder(parse_constant=refuse_constant)


def _members(text: str) -> Iterator[tuple[str, JSON, JSONText]]:
    """The members of the object that ``text`` is: name, value, and the value as it is spelled.

    ``ValueError`` for any other text.
    """
    start = _START.match(text)
    if start is None:
        raise ValueError("it does not begin with {")
    at, ended = start.end(), start[1] is not None
    while not ended:
        key = _KEY.match(text, at)
        if key is None:
            raise ValueError(f"no member begins at character {at}")
        value, end = _DECODER.raw_decode(text, key.end())
        yield _name(key[1]), value, text[key.end() : end]
        after = _AFTER_VALUE.match(text, end)
        if after is None:
            raise ValueError(f"neither , nor }} follows at character {end}")
        at, ended = after.end(), after[1] is not None
    if at != len(text):
        raise ValueError(f"something follows it at character {at}")


def _name(quoted: str) -> str:
    name: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
    return name


def _shown(name: str) -> str:
    text = ascii(name[:_SHOWN])
    return text if len(text) <= _SHOWN and len(name) <= _SHOWN else text[:_SHOWN] + "…"
