"""How the status of an agent looks to people: one screen, what is wrong last, where the eye ends up.

Reasons and conditions quote other hosts, so no control character gets through to a terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from pyflannel.cli.words import plain, span
from pyflannel.telemetry.document import (
    ConditionPart,
    Document,
    KernelPart,
    LeasePart,
    PeerPart,
    State,
    StorePart,
)

HEADER: Final = ("SUBNET", "HOST", "STATE", "RTT", "LOSS", "MTU", "CHANGED", "REASON")
STYLES: Final = {
    State.REACHABLE: "green",
    State.LOSSY: "yellow",
    State.UNREACHABLE: "red",
    State.FAILED: "red",
    State.IGNORED: "yellow",
    "error": "red",
    "warning": "yellow",
}
"""How a word is shown on a terminal."""
_WIDTH: Final = 12


def is_well(document: Document) -> bool:
    """Whether the agent runs, and nothing is wrong that somebody should see to."""
    return document.agent.phase == "running" and not any(_is_bad(each) for each in document.conditions)


def lines(document: Document, now: float) -> Iterator[str]:
    """The screen, without the conditions."""
    agent, host = document.agent, document.host
    started = "" if agent.started is None else f", up {span(now - agent.started)}"
    yield f"{plain(host.name)}: flanneld {agent.version} is {agent.phase}{started} (process {agent.pid})"
    yield ""
    for name, said in _facts(document, now):
        yield f"  {name:<{_WIDTH}}{plain(said)}"


def trouble(condition: ConditionPart, now: float) -> Iterator[str]:
    """A condition: what it says, what it means, and what to do."""
    since = "" if condition.since is None else f", for {span(now - condition.since)}"
    yield f"{condition.severity.upper()} {condition.code}{since}"
    yield f"  {plain(condition.text)}"
    yield f"  What it means: {condition.means}"
    yield f"  What to do:    {condition.remedy}"


def rows(peers: Iterable[PeerPart], now: float) -> list[list[str]]:
    """A row for each peer, in the order of their subnets."""
    return [_row(peer, now) for peer in sorted(peers, key=_place)]


def _facts(document: Document, now: float) -> Iterator[tuple[str, str]]:
    network, host = document.network, document.host
    if network.backend is None:
        yield "Network", f"none yet, looking at {network.prefix}/config"
    else:
        yield "Network", " and ".join(filter(None, (network.ipv4, network.ipv6)))
        yield "Backend", _backend(document)
        addresses = " and ".join(filter(None, (host.ipv4, host.ipv6)))
        yield "This host", f"{addresses} on {host.interface}, MTU {_known(host.mtu)}"
        yield "Lease", _lease(document.lease, now)
    yield "Store", _store(document.store, now)
    if network.backend is not None:
        yield "Kernel", _kernel(document.kernel)
        firewall = document.firewall
        yield "Firewall", ("as it should be" if firewall.ok else "NOT IN ORDER") if firewall.wanted else "left alone"
        written = "is written" if document.outputs.written else "IS NOT WRITTEN"
        yield "Containers", f"{document.outputs.subnet_file} {written}"
        yield "Peers", _peers(document.peers)


def _backend(document: Document) -> str:
    network = document.network
    parts = [network.backend or ""]
    parts += [f"device {network.device}"] if network.device else []
    parts += [f"VNI {network.vni}"] if network.vni is not None else []
    parts += [f"UDP port {network.port}"] if network.port is not None else []
    return ", ".join([*parts, f"MTU {_known(network.mtu)}"])


def _lease(lease: LeasePart, now: float) -> str:
    subnet = " and ".join(filter(None, (lease.subnet, lease.ipv6_subnet)))
    if lease.reserved:
        return f"{subnet}, reserved"
    renewed = "" if lease.renewed is None else f", renewed {span(now - lease.renewed)} ago"
    ends = "" if lease.expires is None else f", ends in {span(lease.expires - now)} unless renewed"
    return f"{subnet}{renewed}{ends}"


def _store(store: StorePart, now: float) -> str:
    where = ", ".join(store.endpoints)
    what = f"{store.kind} at {where}" if store.kind and not where.startswith(f"{store.kind}:") else where
    if store.answers is None:
        return f"{what}, not asked yet"
    since = "" if store.since is None else f" for {span(now - store.since)}"
    return f"{what}, {'answers' if store.answers else 'DOES NOT ANSWER'}{since}"


def _kernel(kernel: KernelPart) -> str:
    failed = sum(kernel.failed.values())
    held = f"{sum(kernel.wanted.values())} items" + (f", {failed} REFUSED" if failed else "")
    repaired = f"; {sum(kernel.repairs.values())} put right so far" if kernel.repairs else ""
    return f"{held}{repaired}{'' if kernel.complete else '; not all peers are known yet'}"


def _peers(peers: Iterable[PeerPart]) -> str:
    counted = Counter(peer.state for peer in peers)
    if not counted:
        return "none"
    said = [f"{counted.pop(state)} {state}" for state in State if state in counted]
    return ", ".join(said + [f"{times} {plain(state)}" for state, times in counted.items()])


def _row(peer: PeerPart, now: float) -> list[str]:
    return [
        " and ".join(filter(None, (peer.subnet, peer.ipv6_subnet))),
        " and ".join(filter(None, (peer.public_ip, peer.public_ipv6))),
        plain(peer.state),
        "-" if peer.rtt is None else f"{peer.rtt * 1000:.1f} ms",
        "-" if peer.loss is None else f"{peer.loss:.0%}",
        _known(peer.mtu),
        "-" if peer.changed is None else f"{span(now - peer.changed)} ago",
        plain(peer.reason),
    ]


def _place(peer: PeerPart) -> tuple[int, int, str]:
    for text in (peer.subnet, peer.ipv6_subnet):
        try:
            if text:
                net = ip_network(text, strict=False)
                return net.version, int(net.network_address), ""
        except ValueError:
            pass
    return 9, 0, peer.subnet or ""


def _known(number: int | None) -> str:
    return "-" if number is None else str(number)


def _is_bad(condition: ConditionPart) -> bool:
    return condition.severity != "notice"
