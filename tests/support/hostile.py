"""What must hold whatever anybody writes to the store: worlds for hostile records to be let loose in, and the laws.

Rules of this file
  1. Records are bytes, as a store has them, and go the whole way: decoder, table, contest, backend.
  2. Peers of a world are honest: nothing they say is in conflict.  All other records are anybody's.
  3. Who writes under an honest peer's own key speaks for that peer, and nobody can tell; such records are left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from pyflannel import backends
from pyflannel.backends.api import View
from pyflannel.backends.wireguard import Wireguard
from pyflannel.diff import device
from pyflannel.keyfile import generate
from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.network import ConfigError, NetworkConfig, parse_network_config
from pyflannel.lease.refusal import refusal
from pyflannel.lease.wire import BadRecord, decode_attrs, parse_subnet_name, subnet_name
from pyflannel.network import Network
from pyflannel.state import FdbEntry, IPAddress, IPNetwork, Item, Link, Neighbour, Route, State
from tests.support import builders

SUBNETS = "/coreos.com/network/subnets/"
OLD, YOUNG = 5, 1000
"""Revisions before and after those at which the honest peers' records were created."""
LONGEST_REASON = 300

UNFIT_HOSTS = tuple(
    builders.subnet(net)
    for net in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/8", "fe80::/10", "ff00::/8")
)


@dataclass(frozen=True, slots=True)
class Record:
    """As a store has it."""

    name: bytes
    """What follows ``subnets/`` in the key."""
    value: bytes
    created: int = YOUNG

    @property
    def key(self) -> str:
        """For people, as the stores report it."""
        return SUBNETS + self.name.decode(errors="backslashreplace")

    def understood(self) -> Lease | Unreadable:
        """What every store makes of it; one further down than leases stand, none even looks at."""
        try:
            subnet, attrs = parse_subnet_name(self.name.decode()), decode_attrs(self.value.decode())
        except (BadRecord, UnicodeDecodeError) as exc:
            return Unreadable(self.key, str(exc))
        return Lease(subnet, attrs, self.created, self.created)


@dataclass(frozen=True, slots=True)
class World:
    """A network, this host's part in it, and honest peers."""

    name: str
    view: View
    own: Record
    """What stands under our own key as long as nobody meddles with it."""
    honest: tuple[Lease, ...]
    wanted: frozenset[Item] = field(init=False)
    """What the kernel should hold with nobody else about."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", frozenset(self.network(Snapshot(1, self.honest)).items()))

    def network(self, *news: Snapshot | Changes) -> Network:
        """One that heard this."""
        made = Network(backends.from_config(self.view.config), self.view)
        for each in news:
            made.fold(each)
        return made


def _world(name: str, config: str, hosts: str, nets: Sequence[tuple[str, ...]], vni: int = 1) -> World:
    """The first of ``nets`` is ours; host number n is ``hosts`` with n in it."""
    parsed = parse_network_config(config)
    first, first6 = IPv4Address(hosts.format(131)), IPv6Address("2001:db8::131")
    under = replace(builders.underlay(), ipv4=first, public_ip=first, ipv6=first6, public_ipv6=first6)
    own = builders.subnet(*nets[0])
    devices = backends.from_config(parsed).devices
    view = View(parsed, under, own, dict(zip(devices, (builders.OWN_MAC, builders.OWN_MAC_V6), strict=False)))

    def lease(number: int, subnet: Subnet) -> Lease:
        data = [f'{{"VNI":{vni},"VtepMAC":"02:00:00:01:0{family}:{number:02x}"}}' for family in (4, 6)]
        attrs = Attrs(IPv4Address(hosts.format(131 + number)), None, "vxlan", data[0])
        if subnet.ipv6 is not None:
            attrs = replace(attrs, public_ipv6=first6 + number, backend_v6_data=data[1])
        return Lease(subnet, attrs, created=10 + number, modified=10 + number)

    peers = tuple(lease(number, builders.subnet(*each)) for number, each in enumerate(nets) if number)
    mine = f'{{"PublicIP":"{first}","BackendType":"vxlan","BackendData":{{"VtepMAC":"{builders.OWN_MAC}"}}}}'
    return World(name, view, Record(subnet_name(own).encode(), mine.encode(), 10), peers)


WORLDS = {
    world.name: world
    for world in (
        _world(
            "plain",
            '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}',
            "172.16.41.{}",
            [("10.2.71.0/24",), ("10.2.41.0/24",), ("10.2.15.0/24",), ("10.2.200.128/25",)],
        ),
        _world(
            "dual",
            '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:2::/48","Backend":{"Type":"vxlan"}}',
            "172.16.41.{}",
            [
                ("10.2.71.0/24", "fd00:2:0:71::/64"),
                ("10.2.41.0/24", "fd00:2:0:41::/64"),
                ("10.2.15.0/24",),
                ("10.2.9.0/24", "fd00:2:0:9::/64"),
            ],
        ),
        # The hosts' own addresses are inside the network, in a part that no subnet is taken from.
        _world(
            "roomy",
            '{"Network":"10.0.0.0/8","SubnetMin":"10.16.0.0","Backend":{"Type":"VXLAN","VNI":70000,"Port":4789}}',
            "10.2.41.{}",
            [("10.71.0.0/24",), ("10.41.0.0/24",), ("10.15.0.0/24",)],
            vni=70000,
        ),
    )
}


def judge(world: World, records: Sequence[Record], seed: int = 0) -> None:
    """``AssertionError`` if ``records``, let loose in ``world``, do what no record may do.  Any other error is one too.

    ``seed`` says in which order they are heard.
    """
    found = _in_store(world, records)
    events = [record.understood() for record in found]
    readable = [event for event in events if isinstance(event, Lease)]
    unreadable = [event for event in events if isinstance(event, Unreadable)]
    listed = world.network(Snapshot(9, (*readable, *world.honest), tuple(unreadable)))
    _check_items(world, listed)
    _check_honest(world, listed, readable)
    _check_reasons(world, listed, events)
    _check_order(world, listed, [*events, *world.honest], random.Random(seed))


def _in_store(world: World, records: Iterable[Record]) -> list[Record]:
    """What a store holds after all was written: one record a name, and none of those that nobody looks at."""
    honest = {subnet_name(lease.subnet).encode() for lease in world.honest}
    found = {record.name: record for record in records if b"/" not in record.name and record.name not in honest}
    return list(found.values())


def _check_items(world: World, network: Network) -> None:
    """Nothing leads out of the network, over another, to ourselves, or into itself."""
    ours = set(network.self_items())
    items = [item for item in network.items() if item not in ours]
    State(items)
    routes = [item.dst for item in items if isinstance(item, Route)]
    hosts = [item.dst for item in items if isinstance(item, FdbEntry)]
    under, own = world.view.underlay, world.view.own
    spans: dict[int, IPNetwork] = {
        span.network.version: span.network
        for span in (world.view.config.ipv4, world.view.config.ipv6)
        if span is not None
    }
    for item in items:
        match item:
            case Route():
                network_ = spans[item.dst.version]
                assert item.dst.prefixlen > network_.prefixlen, f"{item} is no part of {network_}"
                assert item.dst.network_address in network_, f"{item} leads out of {network_}"
                assert not _lies_in(item.dst.network_address, own), f"{item} leads over our subnet"
                assert not any(net.network_address in item.dst for net in (own.ipv4, own.ipv6) if net), (
                    f"over ours: {item}"
                )
                assert not any(address in item.dst for address in (*hosts, under.ipv4, under.ipv6) if address), (
                    f"{item} leads over the address of a host"
                )
            case FdbEntry():
                _check_mac(world, item)
                assert not _lies_in(item.dst, own), f"{item} sends into our subnet"
                assert not any(_lies_in(item.dst, unfit) for unfit in UNFIT_HOSTS), f"{item} sends to no host"
                assert item.dst not in (under.ipv4, under.ipv6, under.public_ip, under.public_ipv6), f"{item} is us"
            case Neighbour():
                _check_mac(world, item)
                assert any(item.ip in route for route in routes), f"{item} belongs to no route"
            case _:
                raise AssertionError(f"{item} is not a peer's")
    assert len(routes) == len({_first(route) for route in routes}) == len(hosts)
    ordered = sorted(routes, key=_first)
    for one, other in pairwise(ordered):
        assert other.network_address not in one, f"{other} lies in {one}"


def _check_mac(world: World, item: Neighbour | FdbEntry) -> None:
    assert item.mac.is_unicast, f"{item} is of no host"
    assert item.mac != world.view.macs[item.dev], f"{item} is of ourselves"


def _check_honest(world: World, network: Network, others: Sequence[Lease]) -> None:
    """Of a peer's items none is missing or changed, unless a record older than the peer's has the better right."""
    items = set(network.items())
    for lease in world.honest:
        expected = network.backend.peer_items(world.view, lease)
        if lease.subnet in network.ignored:
            older = [
                other
                for other in others
                if other.created < lease.created
                and other.subnet != world.view.own
                and in_conflict(network, lease, other)
            ]
            assert older, f"{lease.subnet} is ignored, for {network.ignored[lease.subnet]}"
        else:
            assert items >= set(expected), f"{lease.subnet} lacks {set(expected) - items}"


def in_conflict(network: Network, one: Lease, other: Lease) -> bool:
    """Whether the rules let only one of the two count."""
    claims = network.backend.claims(one) & network.backend.claims(other)
    crossed = [(a.attrs, b.subnet, a.subnet) for a, b in ((one, other), (other, one))]
    inside = any(
        (own.ipv4 and host.public_ip and _lies_in(host.public_ip, subnet))
        or (own.ipv6 and host.public_ipv6 and _lies_in(host.public_ipv6, subnet))
        for host, subnet, own in crossed
    )
    return bool(claims) or inside or one.subnet.overlaps(other.subnet)


def _check_reasons(world: World, network: Network, events: Iterable[Event]) -> None:
    """Whoever is left out is named, with a reason that fits into a line."""
    items = set(network.items())
    for event in events:
        if isinstance(event, Unreadable):
            reason = network.table.unreadable.get(event.key, "")
            _check_line(event.key, reason)
            continue
        assert isinstance(event, Lease)
        if event.subnet == world.view.own:
            continue
        reason = network.ignored.get(event.subnet, "")
        if reason:
            _check_line(str(event.subnet), reason)
        else:
            assert refusal(event, world.view.config) is None
            assert items >= set(network.backend.peer_items(world.view, event)), f"{event} is neither used nor ignored"


def _check_line(key: str, reason: str) -> None:
    assert reason, f"no reason is given for {key}"
    assert len(reason) <= LONGEST_REASON, f"the reason for {key} has {len(reason)} characters"
    assert reason.isprintable(), f"the reason for {key} is not plain: {reason!a}"


def _check_order(world: World, listed: Network, events: Sequence[Lease | Unreadable], rng: random.Random) -> None:
    """Heard one by one, in whatever order, it comes to the same; and when it is gone, nothing is left of it."""
    shuffled = rng.sample(events, len(events))
    followed = world.network(*(Changes(number, (event,)) for number, event in enumerate(shuffled, 1)))
    assert set(followed.items()) == set(listed.items()), "the order matters"
    assert followed.ignored == listed.ignored, "the order matters for what is ignored"
    assert followed.table.unreadable == listed.table.unreadable
    rng.shuffle(shuffled)
    followed.fold(
        Changes(
            len(events) + 1,
            tuple(Removed(each.subnet) for each in shuffled if isinstance(each, Lease) and each not in world.honest),
        )
    )
    assert set(followed.items()) == world.wanted, "something is left of records that are gone"
    assert followed.ignored == {}


def _lies_in(address: IPAddress, subnet: Subnet) -> bool:
    return any(net is not None and address in net for net in (subnet.ipv4, subnet.ipv6))


def _first(net: IPNetwork) -> tuple[int, int]:
    return net.version, int(net.network_address)


CONFIG_KEYS = ("Network", "SubnetLen", "SubnetMin", "SubnetMax", "EnableIPv", "EnableNFTables", "Backend")


def judge_config(text: str) -> bool:
    """``AssertionError`` if ``text`` makes neither a network nor a ``ConfigError`` that says what is wrong with it.

    Any other error is one too.  Returns whether an agent could run with it.
    """
    under = builders.underlay(ipv6="2001:db8::131")
    reason = ""
    try:
        config = parse_network_config(text)
        backend = backends.from_config(config)
        if isinstance(backend, Wireguard):
            backend = backend.keyed(generate(bytes))
        mtu = backend.mtu(under)
    except ConfigError as exc:
        reason = str(exc)
    if reason:
        _check_line("the configuration", reason)
        assert any(key in reason for key in (*CONFIG_KEYS, "the network configuration")), f"which key is it: {reason}"
        return False
    for warning in (*config.warnings, *backend.warnings):
        _check_line("a warning", warning)
    assert len(config.warnings) < 40
    _check_config(config)
    own = Subnet(
        None if config.ipv4 is None else _block(config.ipv4.subnet_min, config.ipv4.subnet_len).ipv4,
        None if config.ipv6 is None else _block(config.ipv6.subnet_max, config.ipv6.subnet_len).ipv6,
    )
    view = View(config, under, own, dict.fromkeys(backend.devices, builders.OWN_MAC))
    items = State(backend.self_items(view)).values()
    assert {item.name for item in items if isinstance(item, Link)} == {*backend.devices}
    assert {device(item) for item in items} <= {*backend.devices}
    assert 0 < mtu <= 65535
    return True


def _block(address: IPAddress, length: int) -> Subnet:
    return builders.subnet(f"{address}/{length}")


def _check_config(config: NetworkConfig) -> None:
    assert config.ipv4 is not None or config.ipv6 is not None
    for span in (config.ipv4, config.ipv6):
        if span is not None:
            for bound in (span.subnet_min, span.subnet_max):
                assert bound in span.network
                subnet = _block(bound, span.subnet_len)
                assert not any(subnet.overlaps(unfit) for unfit in UNFIT_HOSTS if str(unfit) != "240.0.0.0/4")
            assert int(span.subnet_min) <= int(span.subnet_max)
            assert span.network.prefixlen + 2 <= span.subnet_len <= span.network.max_prefixlen - 2
