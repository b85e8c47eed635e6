"""As test_explains, where it takes another network than that of two hosts and vxlan.

What only ipip and the kernel's own wireguard know is tested in the emulated machine.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from pyflannel.tunnel.control import ControlError, Remote
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
    unspoken,
)
from tests.support.machines import eventually
from tests.support.mischief import Occupant, provide, withdraw
from tests.support.pair import CONFIG, Host, Pair
from tests.support.private_run import private_run, programs
from tests.support.trio import ROUTER, Trio, await_route

pytestmark = pytest.mark.needs("root", "netns", "veth", "bridge", "iptables")

BLOCKED: Final = ("tunnel-blocked",)


# Three hosts, one of them behind a router


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with Trio(tmp_path_factory.mktemp("trio"), CONFIG) as made:
        made.start()
        yield made


@pytest.mark.needs("vxlan")
def test_a_gateway_that_is_not_on_the_link(trio: Trio, chronicle: Chronicle) -> None:
    fault = Fault(
        "host-gw, and a host behind a router",
        partial(trio.store.configure, CONFIG.replace("vxlan", "host-gw")),
        partial(trio.store.configure, CONFIG),
        Told(("kernel-refuses", "subnet-silent"), ("kernel-refuses", "subnet-silent"), trace="ends here, at route"),
    )
    explained(Between(trio.one, trio.three), fault, chronicle)


@pytest.mark.needs("vxlan")
def test_a_host_that_reaches_nobody(trio: Trio, chronicle: Chronicle) -> None:
    def pass_on(state: int) -> None:
        trio.switch.run(f"bridge link set dev port1 state {state}")

    told = Told(("cut-off",), ("peer-unreachable",), trace="ends here, at underlay")
    fault = Fault("this host's port of the switch is shut", partial(pass_on, 0), partial(pass_on, 3), told)
    explained(Between(trio.one, trio.three), fault, chronicle)


@pytest.mark.needs("vxlan")
def test_a_host_that_leaves_the_link_and_comes_back_is_not_spoken_of(trio: Trio) -> None:
    one, two = trio.one, trio.two
    direct = f"{two.subnet} via {two.address} dev ens33 proto 70"
    tunnelled = f"{two.subnet} via {two.subnet[0]} dev flannel.1 onlink"

    def leave_and_return() -> None:
        one.space.run(f"ip route add {two.address} via {ROUTER}")
        await_route(one, two, tunnelled)
        one.space.run(f"ip route del {two.address}")
        await_route(one, two, direct)

    trio.store.configure(CONFIG.replace('"vxlan"', '"vxlan","DirectRouting":true'))
    await_route(one, two, direct)
    awaited(Between(one, two), WELL, "direct routes")
    unspoken(Between(one, two), leave_and_return, "a peer off the link")


# udp


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("udp")) as made:
        made.store.configure(CONFIG.replace("vxlan", "udp"))
        made.start()
        awaited(made, WELL, "a network of udp")
        yield made


def forwarder_of(host: Host) -> int:
    """The process that forwards for it; 0 while one gives way to another."""
    found = Remote.connect(host.subnet_file.parent / "flannel0.sock")
    if found is None:
        return 0
    with found, suppress(ControlError):
        return found.hello().pid
    return 0


@pytest.mark.needs("tun")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_forwarder_of_no_use_leaves_nothing_to_tell(forwarding: Pair, number: int) -> None:
    former = forwarder_of(forwarding.two)
    os.kill(former, number)
    if number == signal.SIGKILL:
        eventually(lambda: forwarder_of(forwarding.two) not in (0, former), "another forwarder")
    # Who asks an agent has it ask its forwarder.
    awaited(forwarding, WELL, "a forwarder of no use")
    assert forwarder_of(forwarding.two) not in (0, former)


@pytest.mark.needs("tun")
def test_a_forwarders_port_that_another_program_has(forwarding: Pair, chronicle: Chronicle) -> None:
    one, occupant = forwarding.one, Occupant(forwarding.one, 8285)

    def come() -> None:
        with one.asleep():
            os.kill(forwarder_of(one), signal.SIGKILL)
            eventually(lambda: forwarder_of(one) == 0, "its end")
            occupant.come()

    told = Told(("kernel-refuses", *BLOCKED), BLOCKED, ("port-taken",), trace="ends here, at tunnel")
    explained(forwarding, Fault("another program has the forwarder's port", come, occupant.go, told), chronicle)


# wireguard


_KERNEL: Final = pytest.param("kernel", marks=pytest.mark.needs("wireguard", "wg"))
_PROGRAM: Final = pytest.param("wireguard-go", marks=pytest.mark.needs("wireguard-go"))
HOWEVER: Final = pytest.mark.parametrize("secret", [_KERNEL, _PROGRAM], indirect=True)
BY_A_PROGRAM: Final = pytest.mark.parametrize("secret", [_PROGRAM], indirect=True)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The agent of the first finds its programs in a directory of its own."""
    home = tmp_path_factory.mktemp("wireguard")
    with Pair(home) as made, ExitStack() as stack:
        for host in made.hosts:
            stack.enter_context(private_run(host))
        tools = home / "bin"
        tools.mkdir()
        provide(tools)
        made.one.environment["PATH"] = str(tools)
        made.store.configure(CONFIG.replace("vxlan", "wireguard"))
        made.start()
        for host in made.hosts:
            host.space.run("ip link set cable mtu 1420")
        awaited(made, WELL, "a network of wireguard")
        yield made


@HOWEVER
def test_a_host_without_a_key(secret: Pair, chronicle: Chronicle) -> None:
    keyless = '{"PublicIP":"172.16.41.150","BackendType":"wireguard","BackendData":{}}'
    fault = Fault(
        "a record of wireguard without a key",
        lambda: secret.store.write({"10.2.150.0-24": keyless}),
        lambda: secret.store.write({"10.2.150.0-24": None}),
        Told(("record-ignored",), ("record-ignored",)),
    )
    explained(secret, fault, chronicle)


@HOWEVER
def test_a_port_of_wireguard_that_another_program_has_at_a_start(secret: Pair, chronicle: Chronicle) -> None:
    one, occupant = secret.one, Occupant(secret.one, 51820)

    def come() -> None:
        one.stop()
        one.space.run("ip link delete flannel-wg")
        eventually(lambda: programs(one) == [], "the end of its program")
        occupant.come()
        assert one.start().wait(20) == 1

    def go() -> None:
        occupant.go()
        one.start()

    told = Told(SILENT, BLOCKED, ("agent-not-running", "port-taken"), trace="ends here, at device")
    explained(secret, Fault("another program has the port of wireguard", come, go, told), chronicle)


@BY_A_PROGRAM
def test_a_program_of_wireguard_that_dies_leaves_nothing_to_tell(secret: Pair) -> None:
    (program,) = programs(secret.one)
    os.kill(program, signal.SIGKILL)
    eventually(lambda: programs(secret.one) not in ([], [program]), "another program")
    awaited(secret, WELL, "a program of wireguard that was killed")


@BY_A_PROGRAM
def test_a_program_of_wireguard_that_is_not_there_any_more(secret: Pair, chronicle: Chronicle) -> None:
    tools = Path(secret.one.environment["PATH"])

    def remove() -> None:
        withdraw(tools, "wireguard-go")
        (program,) = programs(secret.one)
        os.kill(program, signal.SIGKILL)

    told = Told(("kernel-refuses", *BLOCKED), BLOCKED, trace="ends here, at device")
    explained(secret, Fault("wireguard-go is gone", remove, partial(provide, tools), told), chronicle)


@BY_A_PROGRAM
def test_a_program_of_wireguard_that_hangs(secret: Pair, chronicle: Chronicle) -> None:
    (program,) = programs(secret.one)
    fault = Fault(
        "wireguard-go hangs",
        partial(os.kill, program, signal.SIGSTOP),
        partial(os.kill, program, signal.SIGCONT),
        Told(BLOCKED, BLOCKED, trace="unsure here, at tunnel"),
    )
    explained(secret, fault, chronicle)


# ipip


@pytest.mark.needs("ipip")
def test_packets_of_ipip_that_are_not_let_in(tmp_path: Path, chronicle: Chronicle) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", "ipip"))
        pair.start()
        awaited(pair, WELL, "a network of ipip")
        fault = Fault(
            "IP-in-IP packets are not let in there",
            {"two": "iptables -I INPUT -p 4 -j DROP"},
            {"two": "iptables -D INPUT -p 4 -j DROP"},
            Told(("one-way",), ("one-way",), doctor_there=("port-blocked",), trace="ends there, at firewall"),
        )
        explained(pair, fault, chronicle)


# extension


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
