from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pyflannel.tunnel.routes import Routes


def find(routes: Routes[str], address: str) -> str | None:
    version = 6 if ":" in address else 4
    return routes.find(version, int(IPv6Address(address) if version == 6 else IPv4Address(address)))


def table(**routes: str) -> Routes[str]:
    made: Routes[str] = Routes()
    for value, network in routes.items():
        made.add(IPv4Network(network), value)
    return made


def test_the_longest_prefix_wins() -> None:
    routes = table(wide="10.0.0.0/8", net="10.1.0.0/16", subnet="10.1.2.0/24", host="10.1.2.3/32")
    assert find(routes, "10.1.2.3") == "host"
    assert find(routes, "10.1.2.4") == "subnet"
    assert find(routes, "10.1.3.4") == "net"
    assert find(routes, "10.2.3.4") == "wide"
    assert find(routes, "11.2.3.4") is None


def test_the_edges_of_a_network_belong_to_it_and_no_more() -> None:
    routes = table(subnet="10.1.2.0/23")
    assert [find(routes, a) for a in ("10.1.1.255", "10.1.2.0", "10.1.3.255", "10.1.4.0")] == [
        None,
        "subnet",
        "subnet",
        None,
    ]


def test_a_default_route_holds_everything() -> None:
    assert find(table(default="0.0.0.0/0"), "255.255.255.255") == "default"


def test_the_last_value_of_a_network_holds() -> None:
    routes = table(old="10.1.2.0/24")
    routes.add(IPv4Network("10.1.2.0/24"), "new")
    assert find(routes, "10.1.2.9") == "new"
    assert len(routes) == 1


def test_removing_uncovers_the_wider_network() -> None:
    routes = table(net="10.1.0.0/16", subnet="10.1.2.0/24")
    assert routes.remove(IPv4Network("10.1.2.0/24")) == "subnet"
    assert find(routes, "10.1.2.3") == "net"
    assert routes.remove(IPv4Network("10.1.2.0/24")) is None
    assert routes.remove(IPv4Network("10.1.0.0/17")) is None
    assert list(routes.items()) == [(IPv4Network("10.1.0.0/16"), "net")]


def test_the_table_can_be_read_part_by_part() -> None:
    routes = table(net="10.1.0.0/16", one="10.1.2.0/24", two="10.1.3.0/24")
    routes.add(IPv6Network("fd00::/48"), "six")
    whole = list(routes.items())
    assert sorted(value for _, value in whole) == ["net", "one", "six", "two"]
    assert dict(whole)[IPv6Network("fd00::/48")] == "six"
    assert [entry for first in range(0, 6, 2) for entry in routes.items(first, 2)] == whole


def test_the_families_are_apart() -> None:
    routes: Routes[str] = Routes()
    routes.add(IPv6Network("::/0"), "six")
    routes.add(IPv4Network("0.0.0.0/0"), "four")
    assert find(routes, "::1") == "six"
    assert find(routes, "0.0.0.1") == "four"
    assert len(routes) == 2


def test_ipv6_prefixes() -> None:
    routes: Routes[str] = Routes()
    routes.add(IPv6Network("fd00::/48"), "net")
    routes.add(IPv6Network("fd00:0:0:1::/64"), "subnet")
    routes.add(IPv6Network("fd00:0:0:1::5/128"), "host")
    assert find(routes, "fd00:0:0:1::5") == "host"
    assert find(routes, "fd00:0:0:1::6") == "subnet"
    assert find(routes, "fd00::6") == "net"
    assert find(routes, "fd01::6") is None
