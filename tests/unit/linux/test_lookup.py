"""What the kernel would do with a packet, in its own words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from pyflannel.linux.errors import KernelError
from pyflannel.linux.lookup import Decision, Kind, look_up
from pyflannel.linux.netlink import Conversation, open_socket
from tests.support.namespaces import Namespace, veth

pytestmark = pytest.mark.needs("root", "netns", "veth")


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    with Namespace("lookup") as here, Namespace("far") as far:
        for name, net in (("ens33", "192.0.2"), ("ens34", "198.51.100")):
            veth(here, name, far, name)
            here.run(f"ip address add {net}.1/24 dev {name}")
        here.run("ip address add 2001:db8::1/64 dev ens33 nodad")
        here.run("ip route add 10.1.0.0/16 via 192.0.2.9 dev ens33 mtu 1300")
        here.run("ip -6 route add fd00:1::/64 via 2001:db8::9 dev ens33")
        for kind in ("unreachable", "prohibit", "blackhole"):
            here.run(f"ip route add {kind} 10.{len(kind)}.0.0/16")
            here.run(f"ip -6 route add {kind} fd00:{len(kind)}::/64")
        here.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        yield here


def index(space: Namespace, name: str) -> int:
    value = space.objects(f"ip -j link show {name}")[0]["ifindex"]
    assert isinstance(value, int)
    return value


def decided(space: Namespace, target: str, source: str = "", came_in: str = "") -> Decision:
    with contextlib.closing(Conversation(open_socket(space.name))) as conversation:
        return look_up(
            conversation,
            ip_address(target),
            ip_address(source) if source else None,
            index(space, came_in) if came_in else 0,
        )


def test_a_route_is_told_with_all_that_matters(space: Namespace) -> None:
    assert decided(space, "10.1.2.3") == Decision(
        Kind.UNICAST,
        index(space, "ens33"),
        ip_address("192.0.2.9"),
        ip_address("192.0.2.1"),
        ip_network("10.1.0.0/16"),
        1300,
    )
    found = decided(space, "fd00:1::5")
    assert (found.kind, found.index, str(found.gateway)) == (Kind.UNICAST, index(space, "ens33"), "2001:db8::9")
    assert found.network == ip_network("fd00:1::/64")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("192.0.2.1", Kind.LOCAL),
        ("2001:db8::1", Kind.LOCAL),
        ("192.0.2.255", Kind.OTHER),
        ("224.0.0.251", Kind.NO_ROUTE),
        ("203.0.113.1", Kind.NO_ROUTE),
        ("fd00:99::1", Kind.NO_ROUTE),
        ("10.11.0.1", Kind.UNREACHABLE),
        ("fd00:11::1", Kind.UNREACHABLE),
        ("10.8.0.1", Kind.PROHIBITED),
        ("fd00:8::1", Kind.PROHIBITED),
        ("10.9.0.1", Kind.BLACKHOLE),
        ("fd00:9::1", Kind.BLACKHOLE),
    ],
)
def test_an_address_is_of_a_kind(space: Namespace, target: str, kind: Kind) -> None:
    assert decided(space, target).kind is kind


def test_a_packet_that_comes_in_is_judged_by_where_it_comes_in(space: Namespace) -> None:
    well = decided(space, "10.1.2.3", source="198.51.100.7", came_in="ens34")
    assert (well.kind, well.index) == (Kind.UNICAST, index(space, "ens33"))
    assert decided(space, "192.0.2.1", source="198.51.100.7", came_in="ens34").kind is Kind.LOCAL
    # From an address of our own: no such packet may come in.
    assert decided(space, "10.1.2.3", source="192.0.2.1", came_in="ens34").kind in (Kind.BLACKHOLE, Kind.WRONG_WAY_IN)


def test_reverse_path_filtering_is_the_kernels_own_answer(space: Namespace) -> None:
    wrong = {"source": "192.0.2.7", "came_in": "ens34"}
    assert decided(space, "10.1.2.3", **wrong).kind is Kind.UNICAST
    space.shell("echo 1 >/proc/sys/net/ipv4/conf/ens34/rp_filter")
    found = decided(space, "10.1.2.3", **wrong)
    space.shell("echo 0 >/proc/sys/net/ipv4/conf/ens34/rp_filter")
    assert found.kind in (Kind.BLACKHOLE, Kind.WRONG_WAY_IN)


def test_policy_routing_counts(space: Namespace) -> None:
    space.run("ip rule add from 192.0.2.1 lookup 100")
    space.run("ip route add 10.1.0.0/16 via 192.0.2.77 dev ens33 table 100")
    found = decided(space, "10.1.2.3", source="192.0.2.1")
    space.run("ip rule del from 192.0.2.1 lookup 100")
    assert str(found.gateway) == "192.0.2.77"


def test_a_device_that_is_not_there_is_an_error(space: Namespace) -> None:
    with (
        contextlib.closing(Conversation(open_socket(space.name))) as conversation,
        pytest.raises(KernelError, match=r"looking up the route to 10\.1\.2\.3"),
    ):
        look_up(conversation, ip_address("10.1.2.3"), ip_address("192.0.2.7"), came_in=9999)
