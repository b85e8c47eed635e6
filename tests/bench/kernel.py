"""Writing neighbour, FDB entry and route of many peers: our netlink against ``ip -batch`` and ``bridge -batch``."""

from __future__ import annotations

import subprocess
import time
from ipaddress import IPv4Address, IPv4Network

from pyflannel.backends.metric import METRICS
from pyflannel.diff import Put
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.state import FdbEntry, Item, Mac, Neighbour, Route
from tests.bench.table import show, spread
from tests.support.namespaces import Namespace

CASES = ((1000, False), (5000, False), (5000, True), (10_000, True))
"""How many peers, and whether their metrics are spread (see pyflannel/backends/vxlan.py)."""
HUGE = (30_000, True)
RUNS = 5


def main(huge: bool) -> None:
    """Print the table."""
    rows = []
    for peers, spread_metrics in (*CASES, *([HUGE] if huge else [])):
        items = peer_items(peers, spread_metrics)
        ours, theirs = [], []
        for _ in range(RUNS):
            ours.append(by_us(items))
            theirs.append(by_iproute(items))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        metrics = "spread" if spread_metrics else "none"
        rows.append([f"{peers:,}", metrics, spread(ours), spread(theirs), spread(ratios, 2)])
    head = ["peers", "metrics", "pyflannel, s", "ip -batch + bridge -batch, s", "ratio, pair by pair"]
    show(f"Programming the kernel; median (least–greatest) of {RUNS}", head, rows)


def peer_items(peers: int, spread_metrics: bool) -> list[Item]:
    """What the vxlan backend wants for ``peers`` hosts."""
    subnets = IPv4Network("10.0.0.0/8").subnets(new_prefix=24)
    items: list[list[Item]] = [[], [], []]
    for number, subnet in zip(range(peers), subnets, strict=False):
        mac = Mac((0x02_00_00_00_00_00 + number).to_bytes(6))
        items[0].append(Neighbour("flannel.1", subnet.network_address, mac))
        items[1].append(FdbEntry("flannel.1", mac, IPv4Address("172.16.1.0") + number))
        metric = 1 + number % METRICS if spread_metrics else 0
        items[2].append(Route(subnet, "flannel.1", via=subnet.network_address, onlink=True, metric=metric))
    return [item for kind in items for item in kind]


def device(space: Namespace) -> None:
    """An empty flannel.1."""
    space.run("ip link add flannel.1 type vxlan id 1 local 127.0.0.1 dstport 8472 nolearning")
    space.run("ip link set flannel.1 up")


def by_us(items: list[Item]) -> float:
    """Seconds from the plan to the last acknowledgement."""
    with Namespace("bench") as space:
        device(space)
        kernel = LinuxKernel(str(space.path))
        began = time.perf_counter()
        report = kernel.apply([Put(item) for item in items])
        spent = time.perf_counter() - began
        assert not report.failed, report.failed[0]
    return spent


def by_iproute(items: list[Item]) -> float:
    """Seconds that iproute2 takes for the same, starting its two programs included."""
    lines: dict[str, list[str]] = {"ip": [], "bridge": []}
    for item in items:
        match item:
            case Neighbour():
                lines["ip"].append(f"neigh replace {item.ip} lladdr {item.mac} dev {item.dev} nud permanent")
            case FdbEntry():
                lines["bridge"].append(f"fdb replace {item.mac} dev {item.dev} self permanent dst {item.dst}")
            case Route():
                metric = f"metric {item.metric}" if item.metric else ""
                lines["ip"].append(f"route replace {item.dst} via {item.via} dev {item.dev} onlink {metric}")
    with Namespace("bench") as space:
        device(space)
        began = time.perf_counter()
        for program, commands in lines.items():
            text = "\n".join(commands) + "\n"
            subprocess.run([program, "-n", space.name, "-batch", "-"], input=text, text=True, check=True)
        return time.perf_counter() - began
