from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Agent, Device, Facts, Listener, Lookup, Manager, Route
from pyflannel.doctor.findings import Finding
from pyflannel.state import PROTO_BOOT, PROTO_FLANNEL, PROTO_KERNEL, Mac
from pyflannel.telemetry.document import PeerPart
from tests.support.healthy_host import DEVICES, HEALTHY, MAC, STATUS, codes

OTHER = Mac.parse("02:00:00:00:00:09")


def only(facts: Facts) -> Finding:
    (found,) = examine(facts)
    return found


def with_route(dst: str, dev: str, via: str | None = None, protocol: int = PROTO_BOOT) -> Facts:
    route = Route(IPv4Network(dst), dev, None if via is None else IPv4Address(via), protocol)
    return replace(HEALTHY, routes=(*(HEALTHY.routes or ()), route))


def with_peer(peer: PeerPart) -> Facts:
    assert HEALTHY.agent is not None
    return replace(HEALTHY, agent=replace(HEALTHY.agent, status=replace(STATUS, peers=(*STATUS.peers, peer))))


@pytest.mark.parametrize(
    ("dst", "dev", "via", "protocol"),
    [
        ("10.2.50.0/24", "br-1234", None, PROTO_KERNEL),
        ("10.2.50.0/24", "tun0", "192.0.2.1", PROTO_BOOT),
        ("10.2.0.0/16", "ens33", None, PROTO_KERNEL),
        ("10.0.0.0/8", "ens33", None, PROTO_KERNEL),
        ("10.2.50.0/24", "ens33", "172.16.41.1", PROTO_BOOT),
        ("10.2.7.0/24", "ens33", "172.16.41.1", PROTO_BOOT),
    ],
    ids=["bridge", "vpn", "link", "larger link", "gateway", "our own subnet elsewhere"],
)
def test_a_route_that_takes_addresses_of_the_network_is_found(
    dst: str, dev: str, via: str | None, protocol: int
) -> None:
    found = only(with_route(dst, dev, via, protocol))
    assert found.code == "routes-overlap"
    assert f"the network is 10.2.0.0/16, and there is a route: {dst}" in found.evidence


@pytest.mark.parametrize(
    ("dst", "dev", "via", "protocol"),
    [
        ("10.0.0.0/8", "tun0", "192.0.2.1", PROTO_BOOT),
        ("10.2.9.0/24", "ens33", "172.16.41.132", PROTO_FLANNEL),
        ("10.2.9.0/24", "ens33", "172.16.41.132", PROTO_BOOT),
        ("10.2.7.128/25", "br-1234", None, PROTO_KERNEL),
        ("192.168.0.0/24", "tun0", None, PROTO_KERNEL),
    ],
    ids=["larger way", "our own way", "one that Go flanneld left", "part of our subnet", "elsewhere"],
)
def test_a_route_that_takes_nothing_away_is_no_trouble(dst: str, dev: str, via: str | None, protocol: int) -> None:
    assert codes(with_route(dst, dev, via, protocol)) == []


def test_who_the_peers_are_must_be_known_to_tell_a_foreign_gateway() -> None:
    facts = with_route("10.2.50.0/24", "ens33", "172.16.41.133")
    assert facts.agent is not None
    assert codes(replace(facts, agent=replace(facts.agent, status=None))) == []


def test_a_rule_that_leads_packets_elsewhere_is_found() -> None:
    found = only(replace(HEALTHY, lookups=(Lookup(IPv4Address("10.2.9.1"), "wg0"),)))
    assert (found.code, "10.2.9.1, a container of another host, to wg0" in found.evidence) == ("routes-overlap", True)


def test_a_peer_without_a_route_is_not_the_routing_tables_fault() -> None:
    assert codes(replace(HEALTHY, lookups=(Lookup(IPv4Address("10.2.9.1"), "ens33"),))) == []


def test_a_tunnel_that_takes_more_than_the_interface_is_found() -> None:
    found = only(replace(HEALTHY, underlay_mtu=1480))
    assert found.code == "tunnel-too-large"
    assert "flannel.1 has the MTU 1450 and adds 50 bytes; ens33 has 1480" in found.evidence


def test_another_program_on_the_port_is_found() -> None:
    found = only(replace(HEALTHY, listeners=(Listener(8472, "named (process 7)"),)))
    assert (found.code, found.evidence) == ("port-taken", "named (process 7) is bound to it")


@pytest.mark.parametrize("program", ["", "python3 -m pyflannel.tunnel.forwarder (process 9)", "flanneld (process 4)"])
def test_the_kernel_and_our_own_programs_may_have_it(program: str) -> None:
    assert codes(replace(HEALTHY, listeners=(Listener(8472, program),))) == []


@pytest.mark.parametrize(
    "device",
    [
        Device("cilium_vxlan", "vxlan", 1500, True, port=8472, external=True),
        Device("vxlan.calico", "vxlan", 1450, True, vni=1, port=8472),
    ],
    ids=["every network", "our network"],
)
def test_another_tunnel_on_the_port_is_found(device: Device) -> None:
    found = only(replace(HEALTHY, devices=(*DEVICES, device)))
    assert (found.code, device.name in found.finding) == ("port-taken", True)


def test_another_network_on_the_same_port_is_no_trouble() -> None:
    other = Device("flannel.2", "vxlan", 1450, True, addresses=(IPv4Interface("10.9.7.0/32"),), vni=2, port=8472)
    assert codes(replace(HEALTHY, devices=(*DEVICES, other))) == []


@pytest.mark.parametrize(("kind", "words"), [("bridge", "of type bridge"), ("", "a network card")])
def test_a_device_that_only_has_the_name_of_the_tunnel_is_found_and_not_judged_as_one(kind: str, words: str) -> None:
    alien = replace(DEVICES[2], kind=kind, mac=OTHER, mtu=1500, vni=None, port=None)
    found = only(replace(HEALTHY, remembered={alien.name: MAC}, devices=(*DEVICES[:2], alien, *DEVICES[3:])))
    assert (found.code, found.evidence) == ("name-taken", f"flannel.1 is {words}, not vxlan")


def test_a_device_that_has_our_vni_while_ours_is_not_there_is_found() -> None:
    thief = Device("vx1", "vxlan", 1450, True, vni=1, port=8472)
    found = only(replace(HEALTHY, devices=(*DEVICES[:2], *DEVICES[3:], thief)))
    assert (found.code, found.evidence) == ("port-taken", "vx1 is a vxlan device for VNI 1 on port 8472")


def test_another_machine_with_our_address_is_found() -> None:
    found = only(replace(HEALTHY, claimants=(OTHER,)))
    assert (found.code, found.evidence) == (
        "host-address-twice",
        f"{OTHER} answers for 172.16.41.131 on ens33",
    )


def test_two_leases_of_one_host_are_found() -> None:
    found = only(with_peer(PeerPart("10.2.11.0/24", None, "172.16.41.132")))
    assert found.code == "leases-of-one-host"
    assert "10.2.9.0/24, 10.2.11.0/24" in found.evidence


def test_a_device_with_another_mac_is_found_and_who_does_such_things() -> None:
    device = replace(DEVICES[2], mac=OTHER)
    found = only(replace(HEALTHY, devices=(*DEVICES[:2], device, *DEVICES[3:])))
    assert found.code == "mac-changed"
    assert f"flannel.1 has {OTHER}, and {MAC} is published; /usr/lib/systemd/network/99-default.link" in found.evidence
    assert found.fix == (("ip", "link", "set", "dev", "flannel.1", "address", str(MAC)),)


def test_what_an_agent_of_another_make_has_given_it_is_right() -> None:
    device = replace(DEVICES[2], mac=OTHER)
    agent = Agent("/run/flannel/flanneld.sock", None, "nobody listens", False, ("flanneld (process 7)",))
    assert codes(replace(HEALTHY, agent=agent, devices=(*DEVICES[:2], device, *DEVICES[3:]))) == []


def test_a_program_that_manages_our_device_is_found() -> None:
    manager = Manager("NetworkManager", "flannel.1", "nmcli device says: flannel.1 connected")
    found = only(replace(HEALTHY, managers=(manager,)))
    assert (found.code, found.evidence) == ("device-managed", "nmcli device says: flannel.1 connected")


@pytest.mark.parametrize(
    "device",
    [
        Device("flannel.7", "vxlan", 1450, True, addresses=(IPv4Interface("10.2.7.0/32"),), vni=7, port=8472),
        Device("flannel0", "tun", 1472, True, addresses=(IPv4Interface("10.2.7.0/16"),)),
    ],
    ids=["another VNI", "another backend"],
)
def test_a_device_of_a_former_run_is_found(device: Device) -> None:
    route = Route(IPv4Network("10.2.0.0/16"), device.name, None, PROTO_KERNEL)
    facts = replace(HEALTHY, devices=(*DEVICES, device), routes=(*(HEALTHY.routes or ()), route))
    found = only(facts)
    assert (found.code, found.fix) == ("stale-device", (("ip", "link", "delete", device.name),))


def test_a_bridge_under_such_a_name_is_somebodys() -> None:
    bridge = Device("flannel.7", "bridge", 1500, True, addresses=(IPv4Interface("192.168.7.1/24"),))
    assert codes(replace(HEALTHY, devices=(*DEVICES, bridge))) == []
