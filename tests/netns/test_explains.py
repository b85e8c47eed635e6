"""Whatever a person could meet is told by the agents' conditions, by the doctor and by a trace, and so is its end.

Each row plants one fault between two healthy hosts and awaits the right story, then repairs it and awaits silence.  How
long that took, for each of the three who tell it, is printed in a table at the end (see it with ``pytest -s``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from pyflannel.tunnel.control import ControlError, Remote
from tests.support.etcd_pair import EtcdPair
from tests.support.explained import (
    SILENT,
    WELL,
    Between,
    Chronicle,
    Fault,
    Told,
    awaited,
    conditions,
    explained,
    filled,
)
from tests.support.machines import eventually
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Host, Pair, Peer
from tests.support.private_run import private_run, programs
from tests.support.trio import Trio

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "nft")

TUNNEL: Final = "-p udp --dport 8472 -j DROP"
NETWORK: Final = "-s 10.2.0.0/16 -j DROP"
HOST_OFF: Final = "172.16.41.199"
"""Nobody has it."""


@pytest.fixture(scope="module")
def chronicle() -> Iterator[Chronicle]:
    made = Chronicle()
    yield made
    print(f"\n{made.table()}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The agent of the first finds its programs in a directory of its own, and keeps what it knows in another."""
    home = tmp_path_factory.mktemp("pair")
    with Pair(home) as made:
        tools = home / "bin"
        tools.mkdir()
        provide(tools)
        made.one.environment["PATH"] = str(tools)
        made.one.flags += [f"-state-dir={home / 'state'}", "-peer-filter"]
        made.start()
        awaited(made, WELL, "two hosts that are well")
        yield made


def provide(tools: Path) -> None:
    """Put every program there that is not there yet."""
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in sorted(Path(place).iterdir()) if Path(place).is_dir() else ():
            link = tools / program.name
            if not link.is_symlink():
                link.symlink_to(program)


def withdraw(tools: Path, *words: str) -> None:
    """Take away every program that has one of these words in its name."""
    for link in tools.iterdir():
        if any(word in link.name for word in words):
            link.unlink()


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
        Told(trace="ends there, at reverse path"),
    ),
    Fault(
        "the container is not there",
        {"two.container": "ip address flush dev eth0"},
        {"two.container": "ip address add {target2}/24 dev eth0; ip route add default via {bridge2}"},
        Told(trace="ends there, at container"),
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


def restart(host: Host) -> None:
    """Have the agent of a host begin anew."""
    if host.agent is not None and host.agent.poll() is None:
        host.stop()
    host.start()


class Occupant:
    """A program that has a UDP port of a host, and is none of ours."""

    def __init__(self, host: Host, port: int) -> None:
        self._host, self._port = host, port
        self._process: subprocess.Popen[bytes] | None = None

    def come(self) -> None:
        """Bind it, once whoever has it has let go."""
        bind = f"s=socket.socket(2,2); s.bind(('',{self._port})); print('bound',flush=True); time.sleep(600)"
        self._process = subprocess.Popen(
            [*self._host.enter, sys.executable, "-S", "-c", f"import socket,time; {bind}"], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def go(self) -> None:
        """Let go of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


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
    ("name", "config"),
    [
        ("the configuration is nonsense", CONFIG.replace("vxlan", "nonsense")),
        ("the configuration is gone", None),
    ],
)
def test_a_configuration_that_cannot_be_used(pair: Pair, chronicle: Chronicle, name: str, config: str | None) -> None:
    fault = Fault(
        name,
        partial(pair.store.configure, config),
        partial(pair.store.configure, CONFIG),
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
        Peer("10.2.0.0/17", "02:00:00:00:00:97", "172.16.41.150").record,
        IGNORED,
    ),
    "a second lease with the address of the peer": (
        "10.2.150.0-24",
        Peer("10.2.150.0/24", "02:00:00:00:00:96", "172.16.41.132").record,
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


def test_an_agent_that_is_stopped(pair: Pair, chronicle: Chronicle) -> None:
    gone, untold = ("agent-not-running",), "unsure there, at agent"
    for host, told in (
        (pair.two, Told(conditions_there=SILENT, doctor_there=gone, trace=untold)),
        (pair.one, Told(SILENT, doctor=gone, trace=untold)),
    ):
        name = "no agent runs here" if host is pair.one else "no agent runs there"
        explained(pair, Fault(name, host.stop, host.start, told), chronicle)


def test_a_tunnel_port_that_another_program_has_at_a_start(pair: Pair, chronicle: Chronicle) -> None:
    occupant, one = Occupant(pair.one, 8472), pair.one

    def come() -> None:
        one.stop()
        one.space.run("ip link delete flannel.1")
        occupant.come()
        assert one.start().wait(20) == 1

    def go() -> None:
        occupant.go()
        one.start()

    told = Told(
        SILENT,
        ("tunnel-blocked",),
        ("agent-not-running", "port-taken"),
        trace="ends here, at device",
    )
    explained(pair, Fault("another program has the tunnel's port", come, go, told), chronicle)


def test_a_probe_port_that_another_program_has(pair: Pair, chronicle: Chronicle) -> None:
    occupant, one = Occupant(pair.one, 8286), pair.one

    def come() -> None:
        one.stop()
        occupant.come()
        one.start()

    told = Told(("probe-port-taken",), trace="unsure there, at agent")
    explained(pair, Fault("another program has the probes' port", come, occupant.go, told), chronicle)


def test_files_that_cannot_be_written(pair: Pair, chronicle: Chronicle) -> None:
    one = pair.one
    state, away = one.home.parent / "state", one.home.parent / "away"
    file = one.subnet_file
    text = file.read_text()

    def shut() -> None:
        one.stop()
        state.rename(away)
        state.write_text("a file where a directory should be")
        file.unlink()
        file.mkdir()
        one.start()

    def open_() -> None:
        state.unlink()
        away.rename(state)
        file.rmdir()
        file.write_text(text)

    told = Told(("cache-unwritable", "subnet-file-unwritable"))
    explained(pair, Fault("neither state nor subnet.env can be written", shut, open_, told), chronicle)


def test_programs_that_are_missing(pair: Pair, chronicle: Chronicle) -> None:
    one, tools = pair.one, Path(pair.one.environment["PATH"])

    def remove() -> None:
        withdraw(tools, "tables", "nft")
        one.space.run("iptables -F FORWARD")
        restart(one)

    told = Told(("firewall-not-in-sync", "peer-filter-off"), (), ("forward-dropped",), trace="ends here, at firewall")
    fault = Fault("neither iptables nor nft is installed", remove, partial(provide, tools), told)
    explained(pair, fault, chronicle)


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


# Where it takes another network


def test_a_gateway_that_is_not_on_the_link(tmp_path: Path, chronicle: Chronicle) -> None:
    with Trio(tmp_path, CONFIG) as trio:
        trio.start()
        fault = Fault(
            "host-gw, and a host behind a router",
            partial(trio.store.configure, CONFIG.replace("vxlan", "host-gw")),
            partial(trio.store.configure, CONFIG),
            Told(("kernel-refuses", "subnet-silent"), ("kernel-refuses", "subnet-silent"), trace="ends here, at route"),
        )
        explained(Between(trio.one, trio.three), fault, chronicle)


@pytest.mark.needs("tun")
def test_a_forwarder_that_dies_leaves_nothing_to_tell(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", "udp"))
        pair.start()
        forwarder = forwarder_of(pair.two)
        os.kill(forwarder, signal.SIGKILL)
        eventually(lambda: forwarder_of(pair.two) not in (0, forwarder), "another forwarder")
        awaited(pair, WELL, "a forwarder that was killed")


def forwarder_of(host: Host) -> int:
    """The process that forwards for it; 0 while one gives way to another."""
    found = Remote.connect(host.subnet_file.parent / "flannel0.sock")
    if found is None:
        return 0
    with found, suppress(ControlError):
        return found.hello().pid
    return 0


@pytest.mark.needs("wireguard-go")
def test_a_program_of_wireguard_that_dies(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair, ExitStack() as stack:
        for host in pair.hosts:
            stack.enter_context(private_run(host))
        pair.store.configure(CONFIG.replace("vxlan", "wireguard"))
        pair.start()
        for host in pair.hosts:
            host.space.run("ip link set cable mtu 1420")
        awaited(pair, WELL, "a network of wireguard")
        (program,) = programs(pair.one)
        os.kill(program, signal.SIGKILL)
        eventually(lambda: programs(pair.one) not in ([], [program]), "another program")
        awaited(pair, WELL, "a program of wireguard that was killed")


def test_a_command_that_fails(tmp_path: Path, chronicle: Chronicle) -> None:
    mark = tmp_path / "broken"
    add = "read MAC; ip neigh replace $PUBLIC_IP lladdr $MAC dev ens33; ip route replace $SUBNET via $PUBLIC_IP"
    commands = {
        "PreStartupCommand": "set -- $(ip -br link show dev ens33); echo $3",
        "SubnetAddCommand": f"test ! -e {mark} || exit 1; {add}",
        "SubnetRemoveCommand": "ip route del $SUBNET via $PUBLIC_IP",
        "SubnetCheckCommand": "ip route show $SUBNET via $PUBLIC_IP | grep -q .",
    }
    with Pair(tmp_path) as pair:
        pair.store.configure(json.dumps(json.loads(CONFIG) | {"Backend": {"Type": "extension", **commands}}))
        pair.start()

        def fail() -> None:
            mark.touch()
            pair.one.space.run(f"ip route del {pair.two.subnet}")

        # Where packets go beyond such a route is not flannel's to know.
        well, told = Told(trace="unsure here, at tunnel"), Told(("command-fails",), trace="ends here, at route")
        fault = Fault("a command of the extension backend fails", fail, mark.unlink, told)
        explained(pair, fault, chronicle, well)
        fail()
        eventually(lambda: conditions(pair.one) == ("command-fails",), "the command's failure")
        pair.store.configure(CONFIG)
        eventually(lambda: conditions(pair.one) == (), "no complaint of what nobody runs any more")


@pytest.mark.needs("etcd")
def test_an_etcd_that_is_stopped(tmp_path: Path, chronicle: Chronicle) -> None:
    with EtcdPair(tmp_path) as pair:
        pair.start()
        # The records of two hosts are there, and nothing of the hosts.
        well = Told(("peer-silent",), ("peer-silent",))
        awaited(pair, well, "both hosts")
        told = Told(("peer-silent", "store-unreachable"), ("peer-silent", "store-unreachable"))
        fault = Fault("all members of etcd are stopped", pair.etcd.kill, pair.etcd.heal, told)
        explained(pair, fault, chronicle, well)
