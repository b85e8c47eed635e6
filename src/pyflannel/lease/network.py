"""The network configuration an administrator writes (compat §2): its rules, and what each violation is called.

Rules of this file
  1. Whatever the text is, the outcome is a ``NetworkConfig`` or a ``ConfigError`` that says which key is wrong,
     what it held and what was expected.
  2. What Go flannel accepts we accept; what it accepts without noticing that it cannot work gets an error here,
     what is merely suspicious a warning.
  3. The two address families obey the same rules with other numbers, so the rules are written once, on integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from pyflannel.lease.fields import JSON as JSON
from pyflannel.lease.fields import ConfigError as ConfigError
from pyflannel.lease.fields import Fields, read_object, shown

LONGEST_CONFIG: Final = 64 * 1024
"""Characters.  A real one has a few hundred; the store would take a million, and everybody reads it."""
LONGEST_TYPE: Final = 64
"""Characters of ``Backend.Type``, which messages repeat."""


@dataclass(frozen=True, slots=True)
class IPv4Range:
    """Where IPv4 subnets are taken from."""

    network: IPv4Network
    subnet_len: int
    subnet_min: IPv4Address
    """Network address of the first subnet that may be leased."""
    subnet_max: IPv4Address
    """Network address of the last one."""


@dataclass(frozen=True, slots=True)
class IPv6Range:
    """Where IPv6 subnets are taken from."""

    network: IPv6Network
    subnet_len: int
    subnet_min: IPv6Address
    subnet_max: IPv6Address


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One network, checked."""

    ipv4: IPv4Range | None
    """None: IPv4 is switched off."""
    ipv6: IPv6Range | None
    """None: IPv6 is switched off, as it is unless asked for."""
    backend_type: str
    """Lower case."""
    backend_options: Mapping[str, JSON] = field(default_factory=dict)
    """The whole ``Backend`` object; each backend reads its own keys, in any case (``backends.options``)."""
    nftables: bool = False
    warnings: tuple[str, ...] = ()
    """What a person should know, though it stops nothing."""


def parse_network_config(text: str) -> NetworkConfig:
    """Read the record ``<prefix>/config``; ``ConfigError`` if no network can be made of it."""
    if len(text) > LONGEST_CONFIG:
        raise ConfigError(f"the network configuration has {len(text)} characters: expected at most {LONGEST_CONFIG}")
    try:
        fields = Fields(read_object(text))
    except ValueError as exc:
        raise ConfigError(f"the network configuration is not a JSON object: {exc}") from exc
    enabled = {_IPV4: fields.flag("EnableIPv4", True), _IPV6: fields.flag("EnableIPv6", False)}
    if not any(enabled.values()):
        raise ConfigError("EnableIPv4 is false and EnableIPv6 is not true: expected at least one of them to be true")
    nftables = fields.flag("EnableNFTables", False)
    warnings = [note for family, on in enabled.items() if not on for note in _switched_off(fields, family)]
    ipv4 = _ipv4_range(_plan(fields, _IPV4)) if enabled[_IPV4] else None
    ipv6 = _ipv6_range(_plan(fields, _IPV6)) if enabled[_IPV6] else None
    backend_type, options = _backend(fields)
    if nftables:
        warnings.append("EnableNFTables is not supported yet: iptables is used")
    if "Backend" not in fields:
        warnings.append(
            "Backend is missing: that means udp, the slowest backend; flannel's documentation promises vxlan, "
            'which takes "Backend":{"Type":"vxlan"}'
        )
    return NetworkConfig(ipv4, ipv6, backend_type, options, nftables, (*warnings, *fields.complaints()))


@dataclass(frozen=True, slots=True)
class _Family:
    """The numbers in which the two families differ, and their keys' first letters."""

    prefix: str
    enable: str
    version: int
    bits: int
    usual_len: int
    """What a host gets if the network is large enough for four such subnets, and ``SubnetLen`` is not given."""
    example: str
    unfit: tuple[tuple[int, int, str], ...]
    """Address, prefix length and name of what no container can have: no host forwards a packet from or to there."""

    @property
    def longest(self) -> int:
        """A subnet needs an address for the tunnel and one for the bridge beside network and broadcast address."""
        return self.bits - 2

    def address(self, number: int) -> str:
        return str(IPv4Address(number) if self.version == 4 else IPv6Address(number))

    def net(self, number: int, length: int) -> str:
        return f"{self.address(number)}/{length}"


_IPV4: Final = _Family(
    *("", "EnableIPv4", 4, 32, 24, "10.2.0.0/16"),
    unfit=(
        (0, 8, "addresses of no host"),
        (127 << 24, 8, "loopback addresses"),
        (224 << 24, 4, "multicast addresses"),
        (0xFFFFFFFF, 32, "the broadcast address"),
    ),
)
_IPV6: Final = _Family(
    *("IPv6", "EnableIPv6", 6, 128, 64, "fd00:10:2::/48"),
    unfit=(
        (0, 8, "reserved addresses"),
        (0xFE80 << 112, 10, "link-local addresses"),
        (0xFF << 120, 8, "multicast addresses"),
    ),
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A checked range as integers."""

    network: int
    prefix_len: int
    subnet_len: int
    low: int
    high: int


def _ipv4_range(plan: _Plan) -> IPv4Range:
    network = IPv4Network((plan.network, plan.prefix_len))
    return IPv4Range(network, plan.subnet_len, IPv4Address(plan.low), IPv4Address(plan.high))


def _ipv6_range(plan: _Plan) -> IPv6Range:
    network = IPv6Network((plan.network, plan.prefix_len))
    return IPv6Range(network, plan.subnet_len, IPv6Address(plan.low), IPv6Address(plan.high))


def _plan(fields: Fields, family: _Family) -> _Plan:
    """The rules of compat §2.3, in their order."""
    network, prefix_len = _network(fields, family)
    subnet_len = _subnet_len(fields, family, network, prefix_len)
    size = 1 << (family.bits - subnet_len)
    end = network + (1 << (family.bits - prefix_len))
    # The first subnet stays free: its .0 would be the network's own address.
    low = _bound(fields, family, "SubnetMin", network + size)
    high = _bound(fields, family, "SubnetMax", end - size)
    for key, bound in (("SubnetMin", low), ("SubnetMax", high)):
        if not network <= bound < end:
            raise ConfigError(
                f"{family.prefix}{key} {family.address(bound)} lies outside {family.prefix}Network "
                f"{family.net(network, prefix_len)}: expected an address in it"
            )
    for key, bound in (("SubnetMin", low), ("SubnetMax", high)):
        if bound % size:
            raise ConfigError(
                f"{family.prefix}{key} {family.address(bound)} is not where a /{subnet_len} begins: "
                f"expected such an address, as {family.address(bound - bound % size)} is"
            )
    if low > high:
        raise ConfigError(
            f"{family.prefix}SubnetMin {family.address(low)} lies above {family.prefix}SubnetMax "
            f"{family.address(high)}: expected room for at least one subnet between them"
        )
    return _Plan(network, prefix_len, subnet_len, low, high)


def _network(fields: Fields, family: _Family) -> tuple[int, int]:
    """The network as (address, prefix length); host bits are cleared without a word, as Go's ParseCIDR does."""
    name = f"{family.prefix}Network"
    expected = f'an IPv{family.version} range such as "{family.example}"'
    if name not in fields:
        raise ConfigError(f"{name} is missing: expected {expected}")
    text = fields.get(name)
    if not isinstance(text, str):
        fields.refuse(name, expected)
    address, _, length = text.partition("/")
    number = _address(address, family)
    if number is None or not (length.isascii() and length.isdigit() and len(length) < 4) or int(length) > family.bits:
        fields.refuse(name, expected)
    prefix_len = int(length)
    network = number >> (family.bits - prefix_len) << (family.bits - prefix_len)
    if network == prefix_len == 0:
        raise ConfigError(f"{name} {text} is every address there is: expected {expected}")
    last = network | ((1 << (family.bits - prefix_len)) - 1)
    for first, bits, what in family.unfit:
        if network <= first | ((1 << (family.bits - bits)) - 1) and first <= last:
            raise ConfigError(f"{name} {text} has {what} in it ({family.net(first, bits)}): expected {expected}")
    return network, prefix_len


def _subnet_len(fields: Fields, family: _Family, network: int, prefix_len: int) -> int:
    """``SubnetLen``, or the length that suits the network."""
    name, whole = f"{family.prefix}SubnetLen", f"{family.prefix}Network {family.net(network, prefix_len)}"
    given = fields.integer(name, 0, 0)
    if given > family.longest:
        raise ConfigError(f"{name} {shown(given)} leaves no usable subnet: it must be at most {family.longest}")
    if prefix_len > family.longest - 2:
        raise ConfigError(f"{whole} is too small: its prefix length must be at most {family.longest - 2}")
    if given and given < prefix_len + 2:
        raise ConfigError(
            f"{name} {given} makes fewer than four subnets of {whole}: it must be at least {prefix_len + 2}"
        )
    return given or max(family.usual_len, prefix_len + 2)


def _bound(fields: Fields, family: _Family, key: str, default: int) -> int:
    """``SubnetMin`` or ``SubnetMax``; the all-zero address counts as not given."""
    name = f"{family.prefix}{key}"
    value = fields.get(name)
    # Go's IPv6 bounds are pointers, which take null; the IPv4 ones are not, and choke on it.
    if value is None and (name not in fields or family is _IPV6):
        return default
    number = _address(value, family) if isinstance(value, str) else None
    if number is None:
        fields.refuse(name, f"an IPv{family.version} address without a prefix length")
    return number or default


def _address(text: str, family: _Family) -> int | None:
    """The number behind an address of ``family``; None if ``text`` is none.  A zone (``%eth0``) is none of Go's."""
    try:
        return int(IPv4Address(text)) if family is _IPV4 else None if "%" in text else int(IPv6Address(text))
    except ValueError:
        return None


def _switched_off(fields: Fields, family: _Family) -> list[str]:
    """Nothing is checked of a family which is off; but whoever wrote a network for it should know."""
    for key in ("Network", "SubnetLen", "SubnetMin", "SubnetMax"):
        fields.ignore(family.prefix + key)
    name = f"{family.prefix}Network"
    given = name in fields
    return [f"{name} is given, but has no effect as long as {family.enable} is not true"] if given else []


def _backend(fields: Fields) -> tuple[str, Mapping[str, JSON]]:
    """The backend's type and the whole ``Backend`` object (compat §2.2)."""
    if "Backend" not in fields:
        fields.ignore("Backend")
        return "udp", {}
    options = fields.get("Backend")
    if not isinstance(options, dict):
        fields.refuse("Backend", 'an object such as {"Type":"vxlan"}')
    backend_type = Fields(options, "Backend.").text("Type", "")
    if not backend_type:
        raise ConfigError('Backend.Type is missing or empty: expected the name of a backend, such as "vxlan"')
    if len(backend_type) > LONGEST_TYPE:
        raise ConfigError(
            f'Backend.Type has {len(backend_type)} characters: expected the name of a backend, such as "vxlan"'
        )
    return backend_type.lower(), options
