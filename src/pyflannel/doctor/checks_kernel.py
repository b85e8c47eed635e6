"""What the kernel is set up for, and what it cannot do or hold."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import islice
from typing import Final

from pyflannel.doctor.checks_network import UNTOUCHED
from pyflannel.doctor.crossings import outer_devices
from pyflannel.doctor.facts import Count, Facts, read_network
from pyflannel.doctor.findings import Check, Sign
from pyflannel.health import Severity
from pyflannel.linux.ethtool import is_harmful

FULL: Final = 0.9
"""Of a limit: what is beyond will not fit much longer."""
SKEW: Final = 60.0
"""Seconds by which two clocks may differ: certificates and leases count in minutes at the least."""
STRICT: Final = "1"


def forwarding_off(facts: Facts) -> Iterator[Sign]:
    """The kernel forwards nothing, or not what comes in by a device we need."""
    if not facts.ranges or (facts.network is not None and facts.network.backend in UNTOUCHED):
        return
    versions = {each.version for each in facts.ranges}
    if 4 in versions:
        yield from _forwarding_ipv4(facts)
    if 6 in versions and facts.sysctls.get("net/ipv6/conf/all/forwarding") == "0":
        yield Sign(
            "this host forwards no IPv6 packets, and containers are other hosts to it",
            "net.ipv6.conf.all.forwarding is 0",
            remedy="Set net.ipv6.conf.all.forwarding=1. A host that forwards ignores router advertisements, so where "
            "the default route comes from one, set accept_ra=2 of the external interface first.",
        )


def _forwarding_ipv4(facts: Facts) -> Iterator[Sign]:
    if facts.sysctls.get("net/ipv4/ip_forward") == "0":
        yield Sign(
            "this host forwards no packets, and containers are other hosts to it",
            "net.ipv4.ip_forward is 0",
            (("sysctl", "-w", "net.ipv4.ip_forward=1"),),
        )
        return
    bridge = facts.bridge
    for name in (*outer_devices(facts, 4), *([bridge.name] if bridge is not None else [])):
        setting = f"net/ipv4/conf/{name}/forwarding"
        if facts.sysctls.get(setting) == "0":
            yield Sign(
                f"this host forwards nothing that comes in by {name}",
                f"{setting} is 0, although net.ipv4.ip_forward is 1",
                (("sysctl", "-w", f"{setting}=1"),),
            )


def reverse_path(facts: Facts) -> Iterator[Sign]:
    """Strict reverse path filtering of a device, where answers to what comes in by it would leave by another one."""
    if facts.underlay is not None and _is_strict(facts, facts.underlay):
        yield from islice(_hosts_elsewhere(facts, facts.underlay), 1)
    for tunnel in facts.tunnels or ():
        if _is_strict(facts, tunnel):
            yield from islice(_containers_elsewhere(facts, tunnel), 1)


def _is_strict(facts: Facts, dev: str) -> bool:
    values = [facts.sysctls.get(f"net/ipv4/conf/{each}/rp_filter") for each in ("all", dev)]
    # The kernel goes by the larger of the two (ip-sysctl.rst); 2 is loose, and lets pass what has any way back.
    return None not in values and max(value or "0" for value in values) == STRICT


def _hosts_elsewhere(facts: Facts, underlay: str) -> Iterator[Sign]:
    hosts = {str(peer.public_ip) for peer in facts.peers}
    for lookup in facts.lookups or ():
        if str(lookup.target) in hosts and lookup.dev not in (underlay, "lo") and not lookup.comes_in:
            yield _filtered(str(lookup.target), underlay, lookup.dev)


def _containers_elsewhere(facts: Facts, tunnel: str) -> Iterator[Sign]:
    """Routes to a peer's containers beside the tunnel.  With DirectRouting its packets may well come beside it, too."""
    direct = facts.network is not None and facts.network.direct
    subnets = [net for peer in facts.peers if isinstance(net := read_network(peer.subnet), IPv4Network)]
    for route in facts.routes or ():
        if route.dev in (facts.tunnels or ()) or not isinstance(route.dst, IPv4Network):
            continue
        if any(route.dst.subnet_of(net) and not (direct and route.dst == net) for net in subnets):
            yield _filtered(str(route.dst), tunnel, route.dev)


def _filtered(source: str, entry: str, leaves: str) -> Sign:
    return Sign(
        f"packets of {source} that come in by {entry} are dropped",
        f"rp_filter of {entry} is strict, and the way to {source} leads out by {leaves}",
        (("sysctl", "-w", f"net/ipv4/conf/{entry}/rp_filter=2"),),
    )


def kernel_lacks(facts: Facts) -> Iterator[Sign]:
    """A kind of device that the network needs, and this kernel does not make."""
    if facts.lacks is not None and facts.network is not None:
        yield Sign(
            f"the network is configured for {facts.network.backend}, for which this kernel is not made", facts.lacks
        )


def checksum_offload(facts: Facts) -> Iterator[Sign]:
    """A kernel that sends wrong checksums, told to leave them for later."""
    if facts.release is None or not is_harmful(facts.release):
        return
    for name in facts.tunnels or ():
        if name.startswith("flannel") and facts.offloads.get(name):
            yield Sign(
                f"packets through {name} may leave with wrong checksums, and are dropped where they arrive",
                f"Linux {facts.release} is older than 5.7, and tx-checksum-ip-generic of {name} is on",
                (("ethtool", "-K", name, "tx-checksum-ip-generic", "off"),),
            )


def neighbours_full(facts: Facts) -> Iterator[Sign]:
    """The kernel's table of neighbours is about to throw out what is needed."""
    if (count := facts.neighbours) is not None and _is_full(count):
        wanted = _room(count)
        yield Sign(
            "the kernel has hardly room for more neighbours",
            f"{count.used} neighbours, and net.ipv4.neigh.default.gc_thresh3 is {count.limit} "
            "(permanent ones, as the agent's are, do not count)",
            (
                ("sysctl", "-w", f"net.ipv4.neigh.default.gc_thresh3={wanted}"),
                ("sysctl", "-w", f"net.ipv4.neigh.default.gc_thresh2={wanted // 2}"),
            ),
        )


def connections_full(facts: Facts) -> Iterator[Sign]:
    """Connection tracking drops what is new once its table is full."""
    if (count := facts.connections) is not None and _is_full(count):
        yield Sign(
            "the kernel has hardly room to track more connections",
            f"{count.used} connections, and net.netfilter.nf_conntrack_max is {count.limit}",
            (("sysctl", "-w", f"net.netfilter.nf_conntrack_max={_room(count)}"),),
        )


def files_full(facts: Facts) -> Iterator[Sign]:
    """No program of this host can open anything once that is reached."""
    if (count := facts.files) is not None and _is_full(count):
        yield Sign(
            "this host has hardly room for more open files",
            f"{count.used} files are open (fs.file-nr), and fs.file-max is {count.limit}",
        )


def clock_wrong(facts: Facts) -> Iterator[Sign]:
    """A clock that differs from the store's, or that was set back."""
    clock = facts.clock
    if clock is None:
        return
    unkept = "; the kernel says that nobody keeps it (adjtimex: unsynchronised)" if clock.synchronised is False else ""
    if clock.store is not None and abs(clock.store - clock.now) > SKEW:
        way = "behind" if clock.store > clock.now else "ahead of"
        yield Sign(
            f"the clock of this host is {abs(clock.store - clock.now):.0f} s {way} that of the store",
            f"the store says {clock.store:.0f} s since 1970, and this host {clock.now:.0f} s{unkept}",
        )
    elif clock.newest_file is not None and clock.newest_file - clock.now > SKEW:
        yield Sign(
            f"the clock of this host was {clock.newest_file - clock.now:.0f} s ahead of now, or is that much behind",
            f"a file of the agent's was written {clock.newest_file:.0f} s after 1970, and now it is {clock.now:.0f} s"
            f"{unkept}",
        )


def _is_full(count: Count) -> bool:
    return count.limit > 0 and count.used >= FULL * count.limit


def _room(count: Count) -> int:
    """Four times what is there, as a power of two."""
    return int(1 << (4 * count.used).bit_length())


_WARNING, _ERROR = Severity.WARNING, Severity.ERROR
_FOR_GOOD: Final[str] = "Set it, and for good: a line in a file below /etc/sysctl.d."
CHECKS: Final = (
    Check(
        "forwarding-off",
        _ERROR,
        "The kernel does not forward",
        "Packets between containers of two hosts are forwarded by both. A host forwards only if it is told to, and "
        "something told it otherwise: a sysctl file, a hardening script, a program that was not told of containers.",
        _FOR_GOOD,
        forwarding_off,
    ),
    Check(
        "rp-filter",
        _ERROR,
        "Reverse path filtering drops the packets of peers",
        "With rp_filter=1 the kernel drops a packet if the way back to its sender leaves by another device than the "
        "one it came in by. That is so for a host with several ways to its peers, and where somebody's route leads to "
        "containers elsewhere beside the tunnel by which they are heard.",
        "Make it loose (2) for that device, or let the way to the peers lead through it.",
        reverse_path,
    ),
    Check(
        "kernel-lacks",
        _ERROR,
        "The kernel has no such device",
        "The backend needs a kind of device that this kernel was built without, or whose module is not installed.",
        "Install the package with the kernel's other modules (linux-modules-extra on Ubuntu, kernel-modules on "
        "Fedora), then modprobe; or configure the network for another backend.",
        kernel_lacks,
    ),
    Check(
        "checksum-offload",
        _ERROR,
        "The kernel is known to send wrong checksums",
        "Kernels before 5.7 may compute a checksum twice where an outer packet is translated, and the receiver drops "
        "it: connections to services hang for 1, 3 or 63 seconds.",
        "Leave -vxlan-checksum-offload at auto, with which the agent switches it off on such kernels; or upgrade.",
        checksum_offload,
    ),
    Check(
        "neighbours-full",
        _WARNING,
        "The table of neighbours is full",
        "When the kernel holds gc_thresh3 neighbours, it forgets some before it learns others: hosts and containers "
        "cannot be reached now and then. The agent's own entries are permanent and do not count.",
        _FOR_GOOD,
        neighbours_full,
    ),
    Check(
        "connections-full",
        _WARNING,
        "Connection tracking is full",
        "When the table is full the kernel drops the first packet of every new connection.",
        _FOR_GOOD,
        connections_full,
    ),
    Check(
        "files-full",
        _WARNING,
        "Too many open files",
        "At the limit nothing can be opened, by no program: no connection to the store, no file.",
        "Find out who has them open (lsof), or raise fs.file-max.",
        files_full,
    ),
    Check(
        "clock-wrong",
        _WARNING,
        "The clock is wrong",
        "Leases of etcd's v2 API end at a time of the store's clock, and certificates are good from one time to "
        "another: with a wrong clock the one is renewed too late, and the others are refused.",
        "Have the clock kept: chrony, systemd-timesyncd or ntpd.",
        clock_wrong,
    ),
)
