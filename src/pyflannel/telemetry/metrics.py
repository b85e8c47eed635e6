"""Every metric there is, and what it is taken from: docs/metrics.md is made of this.

Rules of this file
  1. Names follow Prometheus' conventions, and begin with ``flannel_``, as the network's devices, chains and variables
     do: that is the name operators know it by, and Go flanneld exports nothing that could be mistaken for it.
  2. The number of series is bounded: labels are peers, or come from lists that are short and fixed.
  3. What is not known has no sample; nothing is guessed, and no 0 stands for "unknown".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, TypeAlias

from pyflannel import conditions
from pyflannel.durations import Durations
from pyflannel.reconcile import Reason, Tally
from pyflannel.store.metered import Meter
from pyflannel.telemetry.document import DevicePart, Document, PeerPart, State
from pyflannel.telemetry.exposition import Family, Number, Sample, write, write_durations
from pyflannel.telemetry.usage import Usage


@dataclass(frozen=True, slots=True)
class Measured:
    """What all metrics are taken from."""

    document: Document
    meter: Meter
    usage: Usage
    ready: bool = False
    tally: Tally | None = None
    """None while there is no lease, as the next."""
    firewall_repairs: int | None = None


Reading: TypeAlias = Callable[[Measured], Iterable[Sample]]
Timing: TypeAlias = Callable[[Measured], Iterable[tuple[tuple[str, ...], Durations]]]


def expose(measured: Measured) -> Iterator[str]:
    """All metrics in Prometheus' text format, in pieces of about a millisecond's work each."""
    for family, reading in READINGS:
        yield from write(family, reading(measured))
    for family, timing in TIMINGS:
        yield from write_durations(family, timing(measured))


def _one(read: Callable[[Measured], Number | None]) -> Reading:
    """A metric without labels, if it is known."""

    def reading(measured: Measured) -> Iterator[Sample]:
        if (number := read(measured)) is not None:
            yield (), number

    return reading


def _of_peers(name: str) -> Reading:
    """A field of each peer, where it is known."""
    read: Callable[[PeerPart], Number | None] = attrgetter(name)

    def reading(measured: Measured) -> Iterator[Sample]:
        for peer in measured.document.peers:
            if (number := read(peer)) is not None:
                yield (_peer(peer),), number

    return reading


def _drops(measured: Measured) -> Iterator[Sample]:
    for peer in measured.document.peers:
        for reason, packets in sorted(peer.drops.items()):
            yield (_peer(peer), reason), packets


def _of_devices(name: str) -> Reading:
    read: Callable[[DevicePart], Number | None] = attrgetter(name)

    def reading(measured: Measured) -> Iterator[Sample]:
        for device in measured.document.devices:
            if (number := read(device)) is not None:
                yield (device.name,), number

    return reading


def _by_kind(name: str) -> Reading:
    """Items of the kernel, by kind."""
    read: Callable[[Measured], dict[str, int]] = attrgetter(f"document.kernel.{name}")
    return lambda measured: (((kind,), number) for kind, number in sorted(read(measured).items()))


def _peer(peer: PeerPart) -> str:
    return peer.subnet or peer.ipv6_subnet or ""


def _build(measured: Measured) -> Iterable[Sample]:
    agent = measured.document.agent
    return [((agent.version, measured.document.network.backend or ""), 1)]


def _leases(measured: Measured) -> int | None:
    own = measured.document.lease
    return len(measured.document.peers) + 1 if own.subnet or own.ipv6_subnet else None


def _peers(measured: Measured) -> Iterable[Sample]:
    counted = Counter(peer.state for peer in measured.document.peers)
    return [((str(state),), counted[state]) for state in State]


def _up(measured: Measured) -> Iterator[Sample]:
    for peer in measured.document.peers:
        if peer.state in _UP:
            yield (_peer(peer),), _UP[peer.state]


def _programmed(measured: Measured) -> Iterator[Sample]:
    kernel = measured.document.kernel
    for kind, wanted in sorted(kernel.wanted.items()):
        # What could not be removed fails too, and is not wanted.
        yield (kind,), max(0, wanted - kernel.failed.get(kind, 0))


def _audits(measured: Measured) -> Iterable[Sample]:
    counted = measured.tally.audits if measured.tally is not None else None
    return [] if counted is None else [((str(reason),), counted[reason]) for reason in Reason]


def _repairs(measured: Measured) -> Iterable[Sample]:
    counted = measured.tally.repairs.items() if measured.tally is not None else ()
    return sorted(((str(reason), kind), times) for (reason, kind), times in counted)


def _errors(measured: Measured) -> Iterable[Sample]:
    return sorted(((operation,), times) for operation, times in measured.meter.errors.items())


def _conditions(measured: Measured) -> Iterator[Sample]:
    there = {each.code for each in measured.document.conditions}
    for kind in conditions.ALL:
        yield (kind.code, kind.severity.name.lower()), int(kind.code in there)


def _firewall(measured: Measured) -> int | None:
    firewall = measured.document.firewall
    return int(firewall.ok) if firewall.wanted else None


def _gauge(name: str, said: str, reading: Reading, *labels: str) -> tuple[Family, Reading]:
    return Family(name, "gauge", said, labels), reading


def _counter(name: str, said: str, reading: Reading, *labels: str) -> tuple[Family, Reading]:
    return Family(name, "counter", said, labels), reading


def _timing(name: str, said: str, timing: Timing, *labels: str) -> tuple[Family, Timing]:
    return Family(name, "histogram", said, labels), timing


_UP: Final[Mapping[str, int]] = {State.REACHABLE: 1, State.LOSSY: 1, State.UNREACHABLE: 0, State.FAILED: 0}

READINGS: Final[tuple[tuple[Family, Reading], ...]] = (
    _gauge("flannel_build_info", "Always 1; which version runs, and by which backend.", _build, "version", "backend"),
    _gauge(
        "flannel_ready",
        "1 if containers of this host can rely on its network, as /readyz says.",
        _one(lambda measured: int(measured.ready)),
    ),
    _gauge(
        "flannel_condition",
        "1 if there is such a trouble, 0 if not; docs/troubleshooting.md says what each means.",
        _conditions,
        *("code", "severity"),
    ),
    _gauge("flannel_leases", "Leases in the store that can be read, our own included.", _one(_leases)),
    _gauge(
        "flannel_lease_expiry_timestamp_seconds",
        "When our lease ends unless it is renewed; no sample for a reservation.",
        _one(lambda measured: measured.document.lease.expires),
    ),
    _gauge(
        "flannel_lease_renewed_timestamp_seconds",
        "When our lease was last written, or found as it should be.",
        _one(lambda measured: measured.document.lease.renewed),
    ),
    _gauge("flannel_peers", "Other hosts, by how it stands with them.", _peers, "state"),
    _gauge("flannel_peer_up", "1 if a peer answers, if only now and then; 0 if it does not.", _up, "peer"),
    _gauge("flannel_peer_rtt_seconds", "Time to a peer and back, through the tunnel.", _of_peers("rtt"), "peer"),
    _gauge("flannel_peer_loss_ratio", "Share of the latest probes that had no answer.", _of_peers("loss"), "peer"),
    _gauge("flannel_peer_mtu_bytes", "Largest packet seen to pass to a peer.", _of_peers("mtu"), "peer"),
    _gauge("flannel_peer_heard_timestamp_seconds", "When a peer last answered a probe.", _of_peers("heard"), "peer"),
    _gauge(
        "flannel_peer_changed_timestamp_seconds",
        "When the record of a peer last changed, or was first seen.",
        _of_peers("changed"),
        "peer",
    ),
    _counter(
        "flannel_peer_transmit_bytes_total",
        "Octets sent to a peer (wireguard and udp; other backends count by device).",
        _of_peers("tx_bytes"),
        "peer",
    ),
    _counter(
        "flannel_peer_receive_bytes_total",
        "Octets received from a peer (wireguard and udp).",
        _of_peers("rx_bytes"),
        "peer",
    ),
    _counter("flannel_peer_transmit_packets_total", "Packets sent to a peer (udp).", _of_peers("tx_packets"), "peer"),
    _counter(
        "flannel_peer_receive_packets_total", "Packets received from a peer (udp).", _of_peers("rx_packets"), "peer"
    ),
    _counter(
        "flannel_peer_dropped_packets_total",
        "Packets to or from a peer that went no further, by reason (udp).",
        _drops,
        "peer",
        "reason",
    ),
    _counter(
        "flannel_device_transmit_bytes_total", "Octets sent through a tunnel device.", _of_devices("tx_bytes"), "device"
    ),
    _counter(
        "flannel_device_receive_bytes_total",
        "Octets received through a tunnel device.",
        _of_devices("rx_bytes"),
        "device",
    ),
    _counter(
        "flannel_device_transmit_packets_total",
        "Packets sent through a tunnel device.",
        _of_devices("tx_packets"),
        "device",
    ),
    _counter(
        "flannel_device_receive_packets_total",
        "Packets received through a tunnel device.",
        _of_devices("rx_packets"),
        "device",
    ),
    _gauge("flannel_kernel_items_wanted", "What the kernel should hold, by kind.", _by_kind("wanted"), "kind"),
    _gauge("flannel_kernel_items_programmed", "What of it the kernel has taken, by kind.", _programmed, "kind"),
    _gauge(
        "flannel_kernel_items_failed",
        "What the kernel refused to put or to remove, and is tried again, by kind.",
        _by_kind("failed"),
        "kind",
    ),
    _counter("flannel_kernel_audits_total", "Audits of all that is ours in the kernel, by reason.", _audits, "reason"),
    _counter(
        "flannel_kernel_repairs_total",
        "Items that audits after the start put right, by the reason of the audit and by kind.",
        _repairs,
        *("reason", "kind"),
    ),
    _gauge(
        "flannel_firewall_ok", "1 if our chains are as they should be; no sample if none are wanted.", _one(_firewall)
    ),
    _counter(
        "flannel_firewall_repairs_total",
        "How often our chains had been altered, and were put right.",
        _one(lambda measured: measured.firewall_repairs),
    ),
    _gauge(
        "flannel_subnet_file_written",
        "1 if subnet.env has been written.",
        _one(lambda measured: int(measured.document.outputs.written)),
    ),
    _gauge(
        "flannel_store_up",
        "1 if the store answered when it was last asked, 0 if not.",
        _one(lambda measured: None if measured.meter.answers is None else int(measured.meter.answers)),
    ),
    _counter(
        "flannel_store_errors_total", "Requests to the store without an answer, by operation.", _errors, "operation"
    ),
    _gauge(
        "flannel_store_watch_heard_timestamp_seconds",
        "When the watch last delivered something, if only that nothing happened.",
        _one(lambda measured: measured.meter.heard),
    ),
    _counter(
        "process_cpu_seconds_total",
        "Processor time of the agent.",
        _one(lambda measured: measured.usage.cpu_s),
    ),
    _gauge(
        "process_resident_memory_bytes",
        "Memory of the agent.",
        _one(lambda measured: measured.usage.resident_bytes),
    ),
    _gauge("process_open_fds", "Descriptors of the agent.", _one(lambda measured: measured.usage.open_fds)),
    _gauge(
        "process_start_time_seconds",
        "When the agent started.",
        _one(lambda measured: measured.document.agent.started),
    ),
)
"""Metrics with one number a sample, in the order in which they are written."""

TIMINGS: Final[tuple[tuple[Family, Timing], ...]] = (
    _timing(
        "flannel_kernel_look_duration_seconds",
        "Time an audit takes to read what is ours, and to compare it.",
        lambda measured: [] if measured.tally is None else [((), measured.tally.looks)],
    ),
    _timing(
        "flannel_kernel_write_duration_seconds",
        "Time the kernel takes for a batch of up to 512 changes (netlink).",
        lambda measured: [] if measured.tally is None else [((), measured.tally.writes)],
    ),
    _timing(
        "flannel_store_request_duration_seconds",
        "Time requests to the store take, by operation, those without an answer included.",
        lambda measured: (((operation,), took) for operation, took in measured.meter.requests.items()),
        "operation",
    ),
)
"""Histograms."""

FAMILIES: Final = (*(family for family, _ in READINGS), *(family for family, _ in TIMINGS))
"""Every metric there is."""
