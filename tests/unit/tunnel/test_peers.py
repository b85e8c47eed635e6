from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from pyflannel.tunnel.peers import Endpoint, Peer, Table

ONE, TWO = Endpoint(IPv4Address("192.0.2.1"), 8285), Endpoint(IPv4Address("192.0.2.2"), 8285)
NET1, NET2 = IPv4Network("10.1.1.0/24"), IPv4Network("10.1.2.0/24")


def find(table: Table, address: str) -> Endpoint | None:
    peer = table.find(4, int(IPv4Address(address)))
    return None if peer is None else peer.endpoint


def sender(table: Table, endpoint: Endpoint) -> Peer | None:
    return table.sender(int(endpoint.address))


def test_a_route_makes_its_peer_known() -> None:
    table = Table()
    table.add(NET1, ONE)
    assert find(table, "10.1.1.9") == ONE
    assert find(table, "10.1.2.9") is None
    assert [peer.endpoint for peer in table.peers] == [ONE]
    assert sender(table, ONE) is next(iter(table.peers))
    assert sender(table, TWO) is None


def test_a_peer_lasts_as_long_as_its_last_route() -> None:
    table = Table()
    table.add(NET1, ONE)
    table.add(NET2, ONE)
    table.remove(NET1)
    assert sender(table, ONE) is not None
    table.remove(NET2)
    assert sender(table, ONE) is None
    assert len(table) == 0
    table.remove(NET2)


def test_a_subnet_moves_to_another_peer() -> None:
    table = Table()
    table.add(NET1, ONE)
    table.add(NET1, TWO)
    assert find(table, "10.1.1.9") == TWO
    assert [peer.endpoint for peer in table.peers] == [TWO]
    assert len(table) == 1


def test_counters_outlive_a_new_table() -> None:
    old = Table()
    old.add(NET1, ONE)
    old.add(NET2, TWO)
    new = Table(old)
    new.add(NET2, ONE)
    assert sender(new, ONE) is sender(old, ONE)
    assert sender(new, TWO) is None


def test_a_sealed_table_starts_counting_anew() -> None:
    old = Table()
    old.add(NET1, ONE)
    new = Table(old).sealed()
    new.add(NET1, ONE)
    assert sender(new, ONE) is not sender(old, ONE)


def test_a_host_with_two_ports_stays_a_sender_until_both_are_gone() -> None:
    other = Endpoint(ONE.address, 9999)
    table = Table()
    table.add(NET1, ONE)
    table.add(NET2, other)
    table.remove(NET2)
    peer = sender(table, ONE)
    assert peer is not None
    assert peer.endpoint == ONE
