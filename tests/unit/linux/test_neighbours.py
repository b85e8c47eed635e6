from __future__ import annotations

from ipaddress import ip_address
from socket import AF_INET, AF_INET6

import pytest

from pyflannel.linux import neighbours
from pyflannel.linux.neighbours import AF_BRIDGE, NDA_PORT, NDMSG, NTF_SELF, NUD_NOARP, NUD_PERMANENT
from pyflannel.linux.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, attribute
from pyflannel.state import FdbEntry, Mac, Neighbour
from tests.support.kernel_items import peer, peer6
from tests.support.netlink_oracle import understood

INDEX = 7
NUD_REACHABLE = 0x02
NEIGHBOURS = (peer(2)[0], peer6(2)[0])
ENTRIES = (peer(2)[1], peer6(2)[1])


@pytest.mark.parametrize(("item", "family"), [(NEIGHBOURS[0], AF_INET), (NEIGHBOURS[1], AF_INET6)])
def test_a_neighbour_is_put_as_permanent(item: Neighbour, family: int) -> None:
    request = neighbours.put_neighbour(item, INDEX)
    said = understood(request)
    assert (said["family"], said["ifindex"], said["state"], said["flags"]) == (family, INDEX, NUD_PERMANENT, 0)
    assert (said["NDA_DST"], said["NDA_LLADDR"]) == (str(item.ip), str(item.mac))
    assert request.flags == NLM_F_CREATE | NLM_F_REPLACE


@pytest.mark.parametrize("item", ENTRIES)
def test_a_forwarding_entry_is_put_as_flannel_does(item: FdbEntry) -> None:
    request = neighbours.put_fdb(item, INDEX)
    said = understood(request)
    assert (said["family"], said["ifindex"], said["flags"]) == (AF_BRIDGE, INDEX, NTF_SELF)
    assert said["state"] == NUD_PERMANENT | NUD_NOARP
    assert (said["NDA_LLADDR"], said["NDA_DST"]) == (str(item.mac), str(item.dst))
    assert request.flags == NLM_F_CREATE | NLM_F_REPLACE


def test_a_mac_with_many_hosts_gets_one_more() -> None:
    flood = FdbEntry("flannel.1", Mac(bytes(6)), ip_address("192.0.2.1"))
    assert neighbours.put_fdb(flood, INDEX).flags == NLM_F_CREATE | NLM_F_APPEND


@pytest.mark.parametrize("item", NEIGHBOURS)
def test_a_neighbour_reads_as_it_was_written(item: Neighbour) -> None:
    for request in (neighbours.put_neighbour(item, INDEX), neighbours.cut_neighbour(item, INDEX)):
        assert neighbours.read_neighbour(request.body, INDEX, item.dev) == item


@pytest.mark.parametrize("item", ENTRIES)
def test_a_forwarding_entry_reads_as_it_was_written(item: FdbEntry) -> None:
    for request in (neighbours.put_fdb(item, INDEX), neighbours.cut_fdb(item, INDEX)):
        assert neighbours.read_fdb(request.body, INDEX, item.dev) == item


def test_what_the_kernel_learned_is_passed_over() -> None:
    neighbour, entry = NEIGHBOURS[0], ENTRIES[0]
    body = neighbours.put_neighbour(neighbour, INDEX).body[NDMSG.size :]
    learned = NDMSG.pack(AF_INET, INDEX, NUD_REACHABLE, 0, 0)
    assert neighbours.read_neighbour(learned + body, INDEX, neighbour.dev) is None
    body = neighbours.put_fdb(entry, INDEX).body[NDMSG.size :]
    learned = NDMSG.pack(AF_BRIDGE, INDEX, NUD_REACHABLE, NTF_SELF, 0)
    assert neighbours.read_fdb(learned + body, INDEX, entry.dev) is None


def test_flannels_static_entries_of_old_are_read_too() -> None:
    entry = ENTRIES[0]
    body = neighbours.put_fdb(entry, INDEX).body[NDMSG.size :]
    for state in (NUD_PERMANENT, NUD_NOARP | NUD_REACHABLE):
        header = NDMSG.pack(AF_BRIDGE, INDEX, state, NTF_SELF, 0)
        assert neighbours.read_fdb(header + body, INDEX, entry.dev) == entry


def test_entries_of_another_device_are_passed_over() -> None:
    assert neighbours.read_neighbour(neighbours.put_neighbour(NEIGHBOURS[0], 8).body, INDEX, "x") is None
    assert neighbours.read_fdb(neighbours.put_fdb(ENTRIES[0], 8).body, INDEX, "x") is None


def test_an_entry_with_settings_we_never_make_is_passed_over() -> None:
    body = neighbours.put_fdb(ENTRIES[0], INDEX).body
    assert neighbours.read_fdb(body + attribute(NDA_PORT, b"\x12\xb5"), INDEX, "x") is None


def test_an_entry_without_a_host_or_mac_is_passed_over() -> None:
    header = NDMSG.pack(AF_BRIDGE, INDEX, NUD_PERMANENT, NTF_SELF, 0)
    assert neighbours.read_fdb(header + attribute(neighbours.NDA_LLADDR, bytes(6)), INDEX, "x") is None
    header = NDMSG.pack(AF_INET, INDEX, NUD_PERMANENT, 0, 0)
    assert neighbours.read_neighbour(header + attribute(neighbours.NDA_DST, bytes(4)), INDEX, "x") is None


def test_listings_are_filtered_by_device_in_the_kernel() -> None:
    assert understood(neighbours.query_neighbours(AF_INET6, INDEX))["NDA_IFINDEX"] == INDEX
    assert understood(neighbours.query_fdb(INDEX))["ifindex"] == INDEX


@pytest.mark.parametrize("item", [*NEIGHBOURS, *ENTRIES, FdbEntry("flannel.1", Mac(bytes(6)), ip_address("192.0.2.1"))])
def test_an_event_is_about_the_slot_of_its_item(item: Neighbour | FdbEntry) -> None:
    request = neighbours.cut_neighbour(item, INDEX) if isinstance(item, Neighbour) else neighbours.cut_fdb(item, INDEX)
    assert neighbours.slot(request.body, item.dev) == item.key


def test_a_slot_is_told_without_what_fills_it() -> None:
    neighbour, entry = NEIGHBOURS[0], ENTRIES[0]
    failed = NDMSG.pack(AF_INET, INDEX, 0x20, 0, 0) + attribute(neighbours.NDA_DST, neighbour.ip.packed)
    assert neighbours.slot(failed, neighbour.dev) == neighbour.key
    bare = NDMSG.pack(AF_BRIDGE, INDEX, 0, 0, 0) + attribute(neighbours.NDA_LLADDR, entry.mac)
    assert neighbours.slot(bare, entry.dev) == entry.key


def test_an_event_that_names_no_slot_of_ours_has_none() -> None:
    assert neighbours.slot(NDMSG.pack(AF_INET, INDEX, 0, 0, 0), "flannel.1") is None
    assert neighbours.slot(NDMSG.pack(AF_BRIDGE, INDEX, 0, 0, 0), "flannel.1") is None
    of_a_bridge = neighbours.put_fdb(ENTRIES[0], INDEX).body + attribute(neighbours.NDA_MASTER, bytes(4))
    assert neighbours.slot(of_a_bridge, "flannel.1") is None


def test_a_forwarding_entry_is_no_neighbour() -> None:
    assert neighbours.read_neighbour(neighbours.put_fdb(ENTRIES[0], INDEX).body, INDEX, ENTRIES[0].dev) is None
