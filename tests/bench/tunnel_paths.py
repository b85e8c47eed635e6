"""What goes through the tunnel, beside a plain C forwarder of the same wire format and beside the kernel's vxlan.

All ends share the processors of this machine: two forwarders, an iperf3 at each end.  Only ratios within a run mean
anything; the processor time of the forwarders is the figure that a busy machine spoils least.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.stage import resident_mb
from tests.bench.table import show
from tests.support.machines import eventually
from tests.support.tunnel_hosts import Hosts
from tests.support.tunnel_twin import c_twin

SECONDS = 3
ROUNDS = 3
PLAIN_SOURCE = Path(__file__).with_name("tunnel_plain.c")
BUFFER = min(4 << 20, *(int(Path(f"/proc/sys/net/core/{way}mem_max").read_text()) for way in "rw"))
"""Octets that iperf3 has room for when it is not let run: what it loses itself is no loss of the tunnel."""
SMALL = ("-u", "-l", "64", "-b", "25.6M", "-w", str(BUFFER))
"""50,000 packets a second of 64 octets."""
LARGE = ("-u", "-l", "1400", "-b", "600M", "-w", str(BUFFER))
"""53,000 of 1,400."""
HOSTS, CONTAINERS = "two hosts", "containers behind bridges"
ENDS = (HOSTS, CONTAINERS)
PLAIN = "plain C"
TUNNEL_MTU, VXLAN_MTU = 1472, 1450


@dataclass(slots=True)
class Row:
    """One path, measured ``ROUNDS`` times."""

    one_stream: list[float] = field(default_factory=list)
    four_streams: list[float] = field(default_factory=list)
    cpu_s_per_gbit: list[float] = field(default_factory=list)
    """Of both forwarders together, with one stream."""
    small_loss: list[float] = field(default_factory=list)
    large_loss: list[float] = field(default_factory=list)
    ping_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def main(huge: bool) -> None:
    """All paths in turn, several times over, so that what else the machine does hits all alike; ``huge``: longer."""
    seconds = SECONDS * 4 if huge else SECONDS
    with tempfile.TemporaryDirectory() as place:
        paths = _paths(Path(place))
        rows = {(ends, name): Row() for ends in ENDS for name in paths}
        for _ in range(ROUNDS):
            for name, path in paths.items():
                for ends in ENDS:
                    with Hosts() as hosts, ExitStack() as stack:
                        path(hosts, stack)
                        if ends == CONTAINERS:
                            for host in (hosts.one, hosts.two):
                                host.settle_in(VXLAN_MTU if path is _vxlan else TUNNEL_MTU)
                        _measure(hosts, rows[ends, name], seconds)
    head = ["path", "TCP 1 stream Gb/s", "against C", "4 streams", "CPU s per Gbit", "64 B at 50 kpps lost %"]
    for ends in ENDS:
        plain = median(rows[ends, PLAIN].one_stream)
        show(
            f"udp backend between {ends}, {seconds} s each, median of {ROUNDS}",
            [*head, "1400 B at 600 Mb/s lost %", "ping ms", "MB"],
            [[name, *_cells(rows[ends, name], plain)] for name in paths],
        )


def _cells(row: Row, plain: float) -> list[str]:
    one = median(row.one_stream)
    rest = (row.four_streams, row.cpu_s_per_gbit, row.small_loss, row.large_loss, row.ping_ms, row.memory_mb)
    return [f"{one:.2f}", f"{one / plain:.2f}", *(f"{median(some):.2f}" if some else "-" for some in rest)]


def _paths(place: Path) -> dict[str, Callable[[Hosts, ExitStack], None]]:
    compiler = shutil.which("cc")
    assert compiler, "the bench needs a C compiler"
    plain = place / "plain"
    subprocess.run([compiler, "-O2", "-o", str(plain), str(PLAIN_SOURCE)], check=True)

    def naive(hosts: Hosts, _: ExitStack) -> None:
        for host in (hosts.one, hosts.two):
            host.forward_with(str(plain))

    def ours(language: str) -> Callable[[Hosts, ExitStack], None]:
        def start(hosts: Hosts, stack: ExitStack) -> None:
            control = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for host in (hosts.one, hosts.two):
                stack.enter_context(host.forward(control / host.outer, language))

        return start

    paths = {"kernel vxlan": _vxlan, PLAIN: naive, "ours, Python": ours("Python")}
    return paths | ({"ours, C extension": ours("C")} if c_twin() else {})


def _vxlan(hosts: Hosts, _: ExitStack) -> None:
    for host in (hosts.one, hosts.two):
        kind = f"vxlan id 1 local {host.outer} remote {host.peer.outer} dstport 8472 dev eth0"
        host.space.run(f"ip link add vxlan0 type {kind}")
        host.space.run(f"ip address add {host.inner}/32 dev vxlan0")
        host.space.run(f"ip link set vxlan0 up mtu {VXLAN_MTU}")
        peer = host.peer
        host.space.run(f"ip route add {peer.subnet} via {peer.inner} dev vxlan0 onlink src {host.inner}")


def _measure(hosts: Hosts, row: Row, seconds: int) -> None:
    space, _ = hosts.two.end
    eventually(lambda: _answers(hosts), "an answer through the tunnel")
    row.ping_ms.append(_ping(hosts))
    processes = [host.process.pid for host in (hosts.one, hosts.two) if host.process is not None]
    server = subprocess.Popen(space.argv("iperf3", "-s"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: ":5201 " in space.run("ss -Hlnt"), "iperf3")
        before = sum(map(_cpu_s, processes))
        gbits, rate = _tcp(hosts, 1, seconds)
        row.one_stream.append(rate)
        if processes:
            row.cpu_s_per_gbit.append((sum(map(_cpu_s, processes)) - before) / gbits)
        row.four_streams.append(_tcp(hosts, 4, seconds)[1])
        row.small_loss.append(_udp(hosts, SMALL, seconds))
        row.large_loss.append(_udp(hosts, LARGE, seconds))
        row.memory_mb += [max(map(resident_mb, processes))] if processes else []
    finally:
        server.terminate()
        server.wait()


def _answers(hosts: Hosts) -> bool:
    argv = hosts.one.end[0].argv("ping", "-n", "-c", "1", "-W", "1", hosts.two.end[1])
    return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode == 0


def _ping(hosts: Hosts) -> float:
    said = hosts.one.end[0].run(f"ping -n -q -c 200 -i 0.002 {hosts.two.end[1]}")
    return float(said.rpartition(" = ")[2].split("/")[1])


def _tcp(hosts: Hosts, streams: int, seconds: int) -> tuple[float, float]:
    """Gbit in all, and Gbit a second."""
    end = _iperf3(hosts, "-P", str(streams), "-t", str(seconds))["sum_received"]
    return float(end["bytes"]) * 8e-9, float(end["bits_per_second"]) / 1e9


def _udp(hosts: Hosts, options: tuple[str, ...], seconds: int) -> float:
    return float(_iperf3(hosts, *options, "-t", str(seconds))["sum"]["lost_percent"])


def _iperf3(hosts: Hosts, *options: str) -> dict[str, dict[str, float]]:
    argv = hosts.one.end[0].argv("iperf3", "-c", hosts.two.end[1], "-J", *options)
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    end: dict[str, dict[str, float]] = json.loads(said)["end"]
    return end


def _cpu_s(pid: int) -> float:
    """User and system time of a process (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
