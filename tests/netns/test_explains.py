"""Whatever a person could meet is told by the agents' conditions, by the doctor and by a trace, and so is its end.

Each row plants one fault between two healthy hosts and awaits the right story, then repairs it and awaits silence.  How
long that took, for each of the three who tell it, is printed in a table at the end (see it with ``pytest -s``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

import pytest

from tests.support.capabilities import missing
from tests.support.explained import (
    SILENT,
    WELL,
    Chronicle,
    Fault,
    Told,
    awaited,
    explained,
    filled,
    unspoken,
)
from tests.support.machines import eventually
from tests.support.mischief import restart
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "nft")

TUNNEL: Final = "-p udp --dport 8472 -j DROP"
NETWORK: Final = "-s 10.2.0.0/16 -j DROP"
HOST_OFF: Final = "172.16.41.199"
"""Nobody has it."""
NO_INTERFACE: Final = "nothing: Error: no interface to use: -iface=ens33"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")) as made:
        made.one.flags.append("-peer-filter")
        made.start()
        awaited(made, WELL, "two hosts that are well")
        yield made


# On one pair, by shell commands

FAULTS: Final = (
    Fault(
        "forwarding is off here",
        {"one": "echo 0 >/proc/sys/net/ipv4/ip_forward"},
        {"one": "echo 1 >/proc/sys/net/ipv4/ip_forward"},
        Told(doctor=("forwarding-off",), trace="ends here, at forwarding"),
    ),
    Fault(
        "forwarding is off there",
        {"two": "echo 0 >/proc/sys/net/ipv4/ip_forward"},
        {"two": "echo 1 >/proc/sys/net/ipv4/ip_forward"},
        Told(doctor_there=("forwarding-off",), trace="ends there, at forwarding"),
    ),
    Fault(
        "the tunnel's port is shut there",
        {"two": f"iptables -I INPUT {TUNNEL}"},
        {"two": f"iptables -D INPUT {TUNNEL}"},
        Told(("one-way",), ("one-way",), doctor_there=("port-blocked",), trace="ends there, at firewall"),
    ),
    Fault(
        "the tunnel's packets may not leave here",
        {"one": f"iptables -I OUTPUT {TUNNEL}"},
        {"one": f"iptables -D OUTPUT {TUNNEL}"},
        Told(("one-way",), ("one-way",), trace="ends here, at firewall"),
    ),
    Fault(
        "the tunnel's port is shut both ways",
        {"two": f"iptables -I INPUT {TUNNEL}; iptables -I OUTPUT {TUNNEL}"},
        {"two": f"iptables -D INPUT {TUNNEL}; iptables -D OUTPUT {TUNNEL}"},
        Told(("tunnel-blocked",), ("tunnel-blocked",), doctor_there=("port-blocked",), trace="ends there, at firewall"),
    ),
    Fault(
        "the other host is off the network",
        {"two": "ip link set ens33 down"},
        {"two": "ip link set ens33 up"},
        Told(("peer-unreachable",), ("interface-unusable",), trace="ends here, at underlay"),
    ),
    Fault(
        "this host is off the network",
        {"one": "ip link set ens33 down"},
        {"one": "ip link set ens33 up"},
        Told(("interface-unusable",), ("peer-unreachable",), trace="ends here, at underlay"),
    ),
    Fault(
        "a rule in DOCKER-USER drops it",
        {"two": f"iptables -N DOCKER-USER; iptables -A DOCKER-USER {NETWORK}; iptables -I FORWARD -j DOCKER-USER"},
        {"two": "iptables -D FORWARD -j DOCKER-USER; iptables -F DOCKER-USER; iptables -X DOCKER-USER"},
        Told(doctor_there=("forward-dropped",), trace="ends there, at firewall"),
    ),
    Fault(
        "Docker 28 lets nothing in from elsewhere",
        {"two": "iptables -t raw -A PREROUTING -d {target2} ! -i docker0 -j DROP"},
        {"two": "iptables -t raw -F PREROUTING"},
        Told(doctor_there=("docker-direct-access",), trace="ends there, at firewall"),
    ),
    Fault(
        "a foreign route takes one container",
        {"one": f"ip route add {{target2}} via {HOST_OFF} dev ens33"},
        {"one": "ip route del {target2}"},
        Told(doctor=("routes-overlap",), trace="ends here, at route"),
    ),
    Fault(
        "a foreign route takes half of the peer's subnet",
        {"one": f"ip route add {{gateway2}}/25 via {HOST_OFF} dev ens33"},
        {"one": "ip route del {gateway2}/25"},
        Told(("one-way",), ("one-way",), ("routes-overlap",), trace="ends here, at route"),
    ),
    Fault(
        "the way to the peer is not that back, and rp_filter is strict",
        {
            "one": "ip link add br9 up type bridge; ip route add {host2} dev br9; "
            "echo 1 >/proc/sys/net/ipv4/conf/ens33/rp_filter"
        },
        {"one": "ip link del br9; echo 0 >/proc/sys/net/ipv4/conf/ens33/rp_filter"},
        Told(("peer-unreachable",), ("peer-unreachable",), ("rp-filter",), trace="ends here, at underlay"),
    ),
    Fault(
        "rp_filter of the tunnel is strict, and answers go another way",
        {"two": "echo 1 >/proc/sys/net/ipv4/conf/flannel.1/rp_filter; ip route add {target1} via {host1} dev ens33"},
        {"two": "echo 0 >/proc/sys/net/ipv4/conf/flannel.1/rp_filter; ip route del {target1}"},
        Told(doctor_there=("rp-filter",), trace="ends there, at reverse path"),
    ),
    Fault(
        "the container is not there",
        {"two.container": "ip address flush dev eth0"},
        {"two.container": "ip address add {target2}/24 dev eth0; ip route add default via {bridge2}"},
        Told(trace="ends there, at container"),
    ),
    Fault(
        "docker0 there is in another subnet",
        {"two": "ip address del {bridge2}/24 dev docker0; ip address add 172.17.0.1/16 dev docker0"},
        {"two": "ip address del 172.17.0.1/16 dev docker0; ip address add {bridge2}/24 dev docker0"},
        Told(doctor_there=("bridge-elsewhere",), trace="ends there, at bridge"),
    ),
    Fault(
        "docker0 here takes in containers of others",
        {"one": "ip address del {bridge1}/24 dev docker0; ip address add {bridge1}/16 dev docker0"},
        {"one": "ip address del {bridge1}/16 dev docker0; ip address add {bridge1}/24 dev docker0"},
        Told(doctor=("bridge-elsewhere",)),
    ),
    Fault(
        "docker0 there is down",
        {"two": "ip link set docker0 down"},
        {"two": "ip link set docker0 up"},
        Told(trace="ends there, at bridge"),
    ),
    Fault(
        "this host has no address",
        {"one": "ip address flush dev ens33"},
        {"one": "ip address add {host1}/24 dev ens33"},
        Told(("interface-unusable",), ("peer-unreachable",), trace=f"{NO_INTERFACE}: ens33 has no usable IPv4 address"),
    ),
    Fault(
        "the interface has another name than the agent was told",
        {"one": "ip link set ens33 name enp0s3"},
        {"one": "ip link set enp0s3 name ens33"},
        # The agent that runs knows it again; whoever starts anew would not.
        Told(trace=f"{NO_INTERFACE}: there is no interface ens33"),
    ),
    Fault(
        "containers may send too much",
        {"one": "ip link set cable mtu 1500"},
        {"one": "ip link set cable mtu 1450"},
        Told(doctor=("packets-too-large",)),
    ),
)


@pytest.mark.parametrize("fault", [pytest.param(each, id=each.name) for each in FAULTS])
def test_a_fault_is_told_and_so_is_its_end(pair: Pair, chronicle: Chronicle, fault: Fault) -> None:
    explained(pair, fault, chronicle)


HEALED: Final = {
    "the route": "ip route del {subnet2}",
    "the neighbour": "ip neigh del {gateway2} dev flannel.1",
    "the way to the peer's device": "bridge fdb flush dev flannel.1 2>/dev/null || ip link set flannel.1 down",
    "the device": "ip link delete flannel.1",
    "its address": "ip address flush dev flannel.1",
    "its MAC address": "ip link set flannel.1 address 02:aa:bb:cc:dd:ee",
    "its MTU": "ip link set flannel.1 mtu 1300",
    "all rules": "iptables -F FORWARD; iptables -F FLANNEL-FWD; iptables -X FLANNEL-FWD",
    "all tables": "nft flush ruleset; iptables -P FORWARD DROP",
}


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in HEALED.items()])
def test_what_the_agent_heals_itself_leaves_nothing_to_tell(pair: Pair, script: str) -> None:
    with pair.one.asleep():
        pair.one.space.shell(filled(pair, script))
    awaited(pair, WELL, script)


# On the same pair, by other means


def test_a_path_that_lets_through_less_than_the_device(pair: Pair, chronicle: Chronicle) -> None:
    def let_through(most: int) -> None:
        for port in ("port1", "port2"):
            pair.switch.run(f"ip link set {port} mtu {most}")

    fault = Fault(
        "large packets get lost on the way",
        partial(let_through, 1400),
        partial(let_through, 1500),
        Told(("path-mtu-small",), ("path-mtu-small",)),
    )
    explained(pair, fault, chronicle)


def test_an_interface_that_the_network_does_not_fit_through(pair: Pair, chronicle: Chronicle) -> None:
    # Little enough for the network, and enough for the shortest of questions.
    why = "the network does not fit through ens33: MTU 117 of ens33 leaves 67 bytes for flannel.1: it must be at least"
    fault = Fault(
        "the interface takes 117 bytes",
        {"one": "ip link set ens33 mtu 117"},
        {"one": "ip link set ens33 mtu 1500"},
        Told(("mtu-too-small",), ("path-mtu-small",), ("tunnel-too-large",), trace=f"nothing: Error: {why} 118"),
    )
    explained(pair, fault, chronicle)


def test_a_route_that_somebody_else_has_put_in_the_place_of_ours(pair: Pair, chronicle: Chronicle) -> None:
    def take() -> None:
        with pair.one.asleep():
            pair.one.space.run("ip link add br9 up type bridge")
            pair.one.space.run(f"ip route del {pair.two.subnet}")
            pair.one.space.run(f"ip route add {pair.two.subnet} dev br9")

    told = Told(("kernel-refuses", "one-way"), ("one-way",), ("routes-overlap",), (), "ends here, at route")
    explained(pair, Fault("a foreign route is in the place of ours", take, {"one": "ip link del br9"}, told), chronicle)


@pytest.mark.parametrize(
    ("name", "config", "repaired"),
    [
        ("the configuration is nonsense", CONFIG.replace("vxlan", "nonsense"), f" {CONFIG}"),
        ("the configuration is gone", None, CONFIG),
    ],
)
def test_a_configuration_that_cannot_be_used(
    pair: Pair, chronicle: Chronicle, name: str, config: str | None, repaired: str
) -> None:
    fault = Fault(
        name,
        partial(pair.store.configure, config),
        partial(pair.store.configure, repaired),
        Told(("config-refused",), ("config-refused",)),
    )
    explained(pair, fault, chronicle)


def test_a_store_that_is_out_of_reach(pair: Pair, chronicle: Chronicle) -> None:
    path = pair.store.path
    away = path.with_name("away.db")

    def close() -> None:
        path.rename(away)
        path.mkdir()

    def open_() -> None:
        path.rmdir()
        away.rename(path)

    told = Told(("store-unreachable",), ("store-unreachable",))
    explained(pair, Fault("the store cannot be reached", close, open_, told), chronicle)


def record(host: str, mac: str = "02:00:00:00:00:97") -> str:
    """Of a host of which there is nothing else."""
    return Peer("10.2.150.0/24", mac, host).record


IGNORED: Final = Told(("record-ignored",), ("record-ignored",))
BAD_RECORDS: Final = {
    "a record that nobody can read": ("10.2.150.0-24", "gibberish", IGNORED),
    "a record without what it takes": (
        "10.2.150.0-24",
        '{"PublicIP":"172.16.41.150","BackendType":"vxlan","BackendData":{"VNI":1}}',
        IGNORED,
    ),
    "a subnet that takes in others": (
        "10.2.0.0-17",
        record("172.16.41.150"),
        IGNORED,
    ),
    "a subnet outside the network": ("10.9.0.0-24", record("172.16.41.150"), IGNORED),
    "a host that is everybody's own": ("10.2.150.0-24", record("127.0.0.1"), IGNORED),
    "a host of another backend": ("10.2.150.0-24", '{"PublicIP":"172.16.41.150","BackendType":"host-gw"}', IGNORED),
    "a second lease with the address of the peer": (
        "10.2.150.0-24",
        record("172.16.41.132"),
        Told(("peer-silent",), ("record-ignored",), ("leases-of-one-host",)),
    ),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_record_that_is_of_no_use(pair: Pair, chronicle: Chronicle, name: str) -> None:
    key, value, told = BAD_RECORDS[name]
    fault = Fault(name, lambda: pair.store.write({key: value}), lambda: pair.store.write({key: None}), told)
    explained(pair, fault, chronicle)


def test_our_own_record_that_nobody_can_read(pair: Pair, chronicle: Chronicle) -> None:
    key = str(pair.two.subnet).replace("/", "-")
    fault = Fault(
        "the peer's own record was spoilt",
        lambda: pair.store.write({key: "gibberish"}),
        lambda: pair.store.write({key: None}),
        Told(("record-ignored",), ("lease-unreadable", "record-ignored"), trace="ends here, at lease"),
    )
    explained(pair, fault, chronicle)


def test_a_host_that_gets_no_lease(pair: Pair, chronicle: Chronicle) -> None:
    one, two = pair.one, pair.two
    key = str(two.subnet).replace("/", "-")
    whole = json.loads(CONFIG)

    def leave_no_room() -> None:
        two.stop()
        pair.store.write({key: None})
        pair.store.configure(json.dumps(whole | {"SubnetMin": str(one.subnet[0]), "SubnetMax": str(one.subnet[0])}))
        two.start()

    told = Told((), ("lease-missing",), trace="ends here, at lease")
    fault = Fault("no subnet is free", leave_no_room, partial(pair.store.configure, CONFIG), told)
    explained(pair, fault, chronicle)


def test_packets_that_get_lost_now_and_then(pair: Pair, chronicle: Chronicle) -> None:
    lose = "add rule bridge loss forward ip protocol udp udp dport 8472 numgen random mod 100 < 15 drop"
    chain = "add chain bridge loss forward { type filter hook forward priority 0; }"
    fault = Fault(
        "of a hundred packets of the tunnel fifteen get lost",
        partial(pair.switch.shell, f"nft 'add table bridge loss; {chain}; {lose}'"),
        partial(pair.switch.run, "nft delete table bridge loss"),
        Told(("peer-lossy",), ("peer-lossy",)),
        patience=120.0,
    )
    explained(pair, fault, chronicle)


def test_an_interface_that_is_taken_out_and_put_in_again(pair: Pair, chronicle: Chronicle) -> None:
    fault = Fault(
        "the interface is gone",
        {"one": "ip link delete ens33"},
        pair.one.plug,
        Told(("interface-unusable",), ("peer-unreachable",), trace=f"{NO_INTERFACE}: there is no interface ens33"),
    )
    explained(pair, fault, chronicle)


@pytest.mark.skipif(missing("ipip") is None, reason="this kernel has ipip")
def test_a_configuration_for_which_the_kernel_is_not_made(pair: Pair, chronicle: Chronicle) -> None:
    fault = Fault(
        "the configuration is for ipip, which the kernel lacks",
        partial(pair.store.configure, CONFIG.replace("vxlan", "ipip")),
        partial(pair.store.configure, CONFIG),
        Told(("config-refused",), ("config-refused",)),
    )
    explained(pair, fault, chronicle)


def test_an_address_that_changes_is_not_spoken_of(pair: Pair) -> None:
    one, new = pair.one, "172.16.41.141"

    def move(before: str, after: str) -> None:
        one.space.shell(f"ip address flush dev ens33; ip address add {after}/24 dev ens33")
        record = str(one.subnet)
        eventually(lambda: str(pair.store.leases()[record].attrs.public_ip) == after, f"{after} in place of {before}")
        pair.await_contact()

    def there_and_back() -> None:
        move(one.address, new)
        move(new, one.address)

    unspoken(pair, there_and_back, "another address")


def test_a_new_machine_in_the_place_of_a_peer_is_not_spoken_of(pair: Pair) -> None:
    two, subnet = pair.two, pair.two.subnet

    def replace() -> None:
        two.stop()
        two.forget()
        two.started()
        pair.await_contact()

    unspoken(pair, replace, "a new machine", SILENT)
    assert two.subnet == subnet


def test_another_machine_with_our_address(pair: Pair, chronicle: Chronicle) -> None:
    with ExitStack() as stack:

        def come() -> None:
            # Who sends to us knows us, so that the two machines do not take turns.
            mac = pair.one.space.objects("ip -j link show dev ens33")[0]["address"]
            pair.two.space.run(f"ip neigh replace {pair.one.address} lladdr {mac} dev ens33 nud permanent")
            pair.switch.plug(stack.enter_context(Namespace("twin")), "ens33", f"{pair.one.address}/24")

        def go() -> None:
            stack.close()
            pair.two.space.run(f"ip neigh del {pair.one.address} dev ens33")

        explained(
            pair,
            Fault("another machine has our address", come, go, Told(doctor=("host-address-twice",))),
            chronicle,
        )


def test_another_host_that_takes_our_address_for_its_own(pair: Pair, chronicle: Chronicle) -> None:
    one, key = pair.one, str(pair.one.subnet).replace("/", "-")
    # Like ours but for a word, so that nobody sends to the wrong device, and this is all that there is to tell.
    ours = json.loads(pair.store.leases()[str(one.subnet)].attrs.backend_data or "{}")
    twin = {"PublicIP": one.address, "BackendType": "vxlan", "BackendData": {**ours, "Twin": True}}

    def published() -> bool:
        return "Twin" in str(pair.store.leases()[str(one.subnet)].attrs.backend_data)

    def fight() -> None:
        for _ in range(2):
            eventually(lambda: not published(), "our own words")
            pair.store.write({key: json.dumps(twin)})

    fault = Fault("another host publishes our address", fight, partial(restart, one), Told(("address-twice",)))
    explained(pair, fault, chronicle)


def test_a_lease_that_another_host_takes(pair: Pair, chronicle: Chronicle) -> None:
    one, lost = pair.one, pair.one.subnet
    thief = Peer(str(lost), "02:00:00:00:00:66", "172.16.41.166")

    def take() -> None:
        pair.store.join(thief)
        eventually(lambda: one.subnet != lost, "another subnet")

    def move() -> None:
        pair.store.leave(thief)
        one.space.run("ip link delete cable")
        one.space.run("ip link delete docker0")
        one.settle_in(one.subnet)

    told = Told(
        ("kernel-refuses", "peer-silent"),
        ("peer-silent",),
        ("bridge-elsewhere", "routes-overlap"),
        trace="answer ends there, at underlay",
    )
    explained(pair, Fault("another host has taken our subnet", take, move, told), chronicle)
