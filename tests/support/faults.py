"""What people, udev, NetworkManager, firewalld and other agents do to the kernel's state behind an agent's back.

Every fault is a list of commands as somebody would type them, on a host whose agent has a lease, ``PEERS`` in its store
and ``-ip-masq`` among its options.  After each of them the agent is to bring everything back to what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from tests.support.machines import Switch
from tests.support.namespaces import Namespace
from tests.support.pair import Host, Peer, Records

PEERS = (
    Peer("10.2.241.0/24", "02:00:00:00:00:41", "172.16.41.141"),
    Peer("10.2.242.0/24", "02:00:00:00:00:42", "172.16.41.142"),
)
"""In the store while a fault happens."""
GONE = Peer("10.2.249.0/24", "02:00:00:00:00:49", "172.16.41.149")
"""Of an earlier time: in no store."""

Event = Literal["told", "silent"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens."""

    name: str
    """In words, as a test's name has it."""
    commands: tuple[str, ...]
    """As typed; ``{own}`` is the address of our device, ``{host}`` that of the host."""
    event: Event = "told"
    """Whether the kernel tells of it, or it has to be looked for."""
    needs: tuple[str, ...] = ()
    """What the kernel must offer for it (``capabilities``)."""

    def happen(self, host: Host) -> None:
        """Run the commands; one that fails is an ``AssertionError``."""
        for program, lines in groupby(self.on(host), key=lambda line: line.partition(" ")[0]):
            if program == "ip":
                # In one process, as an agent may mend the half of it in the time it takes to start the next.
                host.space.run("ip -batch -", stdin="\n".join([*lines, ""]).removeprefix("ip ").replace("\nip ", "\n"))
            elif program == "iptables":
                host.space.run("iptables-restore --noflush --wait", stdin=_transaction(lines))
            else:
                for line in lines:
                    host.space.run(line)

    def on(self, host: Host) -> list[str]:
        """The commands for this host."""
        known = {"host": host.address}
        if any("{own}" in line for line in self.commands):
            known["own"] = str(host.subnet.network_address)
        return [line.format(**known) for line in self.commands]


def _transaction(lines: Iterable[str]) -> str:
    """The lines, which are all about one table, for iptables-restore(8)."""
    table, changes = "filter", list[str]()
    for line in lines:
        change = line.removeprefix("iptables ")
        if change.startswith("-t "):
            _, table, change = change.split(" ", 2)
        changes.append(change)
    return "\n".join([f"*{table}", *changes, "COMMIT", ""])


def _fault(name: str, *commands: str, event: Event = "told", needs: tuple[str, ...] = ()) -> Fault:
    return Fault(name, tuple(_spelled(command) for command in commands), event, needs)


def _spelled(command: str) -> str:
    """Write out the peers: ``A.mac`` and so on."""
    for letter, peer in (("A", PEERS[0]), ("B", PEERS[1]), ("GONE", GONE)):
        for what in ("subnet", "mac", "host", "gateway"):
            command = command.replace(f"<{letter}.{what}>", getattr(peer, what))
    return command


_REMAKE = "ip link add flannel.1 type vxlan dev ens33 nolearning "

DEVICE_FAULTS = (
    _fault("device deleted", "ip link delete flannel.1"),
    _fault("device down", "ip link set flannel.1 down"),
    _fault("device down and up", "ip link set flannel.1 down", "ip link set flannel.1 up"),
    _fault(
        "device renamed", "ip link set flannel.1 down", "ip link set flannel.1 name stolen", "ip link set stolen up"
    ),
    _fault("device renamed while up", "ip link set flannel.1 name stolen", needs=("live-rename",)),
    _fault("MAC changed", "ip link set flannel.1 address 02:aa:bb:cc:dd:ee"),
    _fault("MTU lowered", "ip link set flannel.1 mtu 1300"),
    _fault("local altered", "ip link set flannel.1 type vxlan id 1 local 172.16.41.99"),
    _fault("learning switched on", "ip link set flannel.1 type vxlan id 1 learning"),
    _fault(
        "device made anew with another VNI",
        "ip link delete flannel.1",
        _REMAKE + "id 77 local {host} dstport 8472",
        "ip link set flannel.1 up",
    ),
    _fault(
        "device made anew with another port",
        "ip link delete flannel.1",
        _REMAKE + "id 1 local {host} dstport 4789",
        "ip link set flannel.1 up",
    ),
    _fault(
        "device made anew with another local address",
        "ip link delete flannel.1",
        _REMAKE + "id 1 local 172.16.41.99 dstport 8472",
        "ip link set flannel.1 up",
    ),
    _fault(
        "device made anew over another interface",
        "ip link delete flannel.1",
        "ip link add flannel.1 type vxlan id 1 dev net0 local {host} dstport 8472 nolearning",
        "ip link set flannel.1 up",
    ),
    _fault(
        "device made anew with another MAC, and down",
        "ip link delete flannel.1",
        _REMAKE + "id 1 local {host} dstport 8472",
        "ip link set flannel.1 address 02:aa:bb:cc:dd:ee",
    ),
)

ADDRESS_FAULTS = (
    _fault("address removed", "ip address delete {own}/32 dev flannel.1"),
    _fault("a second address inside the network", "ip address add 10.2.240.1/32 dev flannel.1"),
    _fault("our address for the whole network", "ip address add {own}/16 dev flannel.1"),
    _fault(
        "address replaced", "ip address add 10.2.240.1/24 dev flannel.1", "ip address delete {own}/32 dev flannel.1"
    ),
    _fault("addresses flushed", "ip address flush dev flannel.1"),
)

ROUTE_FAULTS = (
    _fault("route deleted", "ip route delete <A.subnet>"),
    _fault("all routes deleted", "ip route flush dev flannel.1"),
    _fault("route led to another peer", "ip route replace <A.subnet> via <B.gateway> dev flannel.1 onlink"),
    _fault("route without its gateway", "ip route replace <A.subnet> dev flannel.1"),
    _fault(
        "route of another protocol", "ip route replace <A.subnet> via <A.gateway> dev flannel.1 onlink proto static"
    ),
    _fault("route with an MTU", "ip route replace <A.subnet> via <A.gateway> dev flannel.1 onlink mtu 1200"),
    _fault("route doubled with a metric", "ip route add <A.subnet> via <B.gateway> dev flannel.1 onlink metric 50"),
    _fault("route appended to", "ip route append <A.subnet> via <B.gateway> dev flannel.1 onlink"),
    _fault("route put before", "ip route prepend <A.subnet> via <B.gateway> dev flannel.1 onlink"),
    _fault("narrower routes", "ip route add 10.2.241.128/25 via <B.gateway> dev flannel.1 onlink"),
)

NEIGHBOUR_FAULTS = (
    _fault("neighbour deleted", "ip neigh delete <A.gateway> dev flannel.1"),
    _fault("neighbours flushed", "ip neigh flush dev flannel.1 nud permanent"),
    _fault("neighbour altered", "ip neigh replace <A.gateway> lladdr <B.mac> dev flannel.1 nud permanent"),
    _fault("neighbour made to age", "ip neigh replace <A.gateway> lladdr <A.mac> dev flannel.1 nud reachable"),
    _fault("neighbour added", "ip neigh add 10.2.241.7 lladdr <B.mac> dev flannel.1 nud permanent"),
)

FDB_FAULTS = (
    _fault("FDB entry deleted", "bridge fdb delete <A.mac> dev flannel.1 self"),
    _fault("FDB flushed", "bridge fdb flush dev flannel.1", needs=("fdb-flush",)),
    _fault("FDB entry altered", "bridge fdb replace <A.mac> dev flannel.1 self permanent dst <B.host>"),
    _fault(
        "FDB entry with another port", "bridge fdb replace <A.mac> dev flannel.1 self permanent dst <A.host> port 99"
    ),
    _fault("FDB entry added", "bridge fdb add 02:00:00:00:00:77 dev flannel.1 self permanent dst <B.host>"),
    _fault("default FDB entry added", "bridge fdb append 00:00:00:00:00:00 dev flannel.1 self permanent dst <B.host>"),
)

STALE = _fault(
    "entries of a host that is gone",
    "ip route add <GONE.subnet> via <GONE.gateway> dev flannel.1 onlink",
    "ip neigh add <GONE.gateway> lladdr <GONE.mac> dev flannel.1 nud permanent",
    "bridge fdb add <GONE.mac> dev flannel.1 self permanent dst <GONE.host>",
)

OTHER_FAULTS = (
    STALE,
    _fault(
        "router advertisements accepted",
        "sh -c 'echo 2 >/proc/sys/net/ipv6/conf/flannel.1/accept_ra'",
        event="silent",
    ),
)

_FORWARD = '-m comment --comment "flanneld forward" '
_MASQ = '-m comment --comment "flanneld masq" '

_SOMEBODYS_NAT = (
    "iptables -t nat -A SOMEBODY -s 203.0.113.0/24 -j RETURN",
    "iptables -t nat -A POSTROUTING -j SOMEBODY",
)

RULE_FAULTS = (
    _fault("FORWARD flushed", "iptables -F FORWARD", "iptables -A FORWARD -j SOMEBODY"),
    _fault("our filter chain flushed", "iptables -F FLANNEL-FWD"),
    _fault("our nat chain flushed", "iptables -t nat -F FLANNEL-POSTRTG"),
    _fault("nat flushed", "iptables -t nat -F", *_SOMEBODYS_NAT),
    _fault("a rule deleted", "iptables -D FLANNEL-FWD 1"),
    _fault("our chain deleted", f"iptables -D FORWARD {_FORWARD} -j FLANNEL-FWD", "iptables -F FLANNEL-FWD",
           "iptables -X FLANNEL-FWD"),
    _fault("a rule doubled", f"iptables -A FLANNEL-FWD -s 10.2.0.0/16 {_FORWARD} -j ACCEPT"),
    _fault("the jump doubled", f"iptables -A FORWARD {_FORWARD} -j FLANNEL-FWD"),
    _fault(
        "rules in another order",
        f"iptables -t nat -D FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {_MASQ} -j RETURN",
        f"iptables -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {_MASQ} -j RETURN",
    ),
    _fault("a rule of somebody's in our chain", "iptables -I FLANNEL-FWD -s 10.2.7.0/24 -j DROP"),
    _fault(
        "the jump behind somebody's",
        f"iptables -D FORWARD {_FORWARD} -j FLANNEL-FWD",
        f"iptables -A FORWARD {_FORWARD} -j FLANNEL-FWD",
    ),
)  # fmt: skip

FAULTS = (
    *DEVICE_FAULTS,
    *ADDRESS_FAULTS,
    *ROUTE_FAULTS,
    *NEIGHBOUR_FAULTS,
    *FDB_FAULTS,
    *OTHER_FAULTS,
    *RULE_FAULTS,
)


def furnish(space: Namespace) -> None:
    """Other people's things on a host, some of them as close to ours as they can be."""
    space.run("ip link add net0 type veth peer name net1")
    for command in _furniture():
        space.run(command)


def _furniture() -> Iterator[str]:
    yield from ("ip link set net0 up", "ip link set net1 up", "ip address add 198.51.100.1/24 dev net0")
    yield "ip route add 203.0.113.0/24 via 198.51.100.9 dev net0 metric 7"
    yield "ip route add 10.2.200.0/24 via 198.51.100.9 dev net0 proto static"
    yield "ip route add 10.2.0.0/16 via 198.51.100.9 dev net0 table 100"
    yield "ip rule add to 203.0.113.7 lookup 100"
    yield "ip neigh add 198.51.100.9 lladdr 02:00:00:00:09:09 dev net0 nud permanent"
    yield "ip link add vxlan9 type vxlan id 9 dev net0 local 198.51.100.1 dstport 8472 nolearning"
    yield "ip link set vxlan9 up"
    yield "ip address add 10.2.201.1/24 dev vxlan9"
    yield "ip route add 10.2.202.0/24 via 10.2.201.9 dev vxlan9 onlink"
    yield "ip neigh add 10.2.201.9 lladdr 02:00:00:00:00:41 dev vxlan9 nud permanent"
    yield "bridge fdb add 02:00:00:00:00:41 dev vxlan9 self permanent dst 198.51.100.9"
    for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
        yield f"iptables -t {table} -N SOMEBODY"
        yield f"iptables -t {table} -A SOMEBODY -s 203.0.113.0/24 -j RETURN"
        yield f"iptables -t {table} -A {chain} -j SOMEBODY"


@contextmanager
def patient(home: Path) -> Iterator[Host]:
    """A furnished host alone on its switch, whose agent has brought in both peers."""
    with ExitStack() as stack:
        store = Records(home / "store.db")
        stack.callback(store.close)
        switch = stack.enter_context(Switch())
        host = Host("patient", switch, "172.16.41.131", store, home / "host")
        stack.callback(host.close)
        host.flags.append("-ip-masq")
        furnish(host.space)
        store.join(*PEERS)
        host.started()
        yield host
