"""The firewall on the way: which chains a packet passes at a hook, and what they say.

A hook is a place in the kernel where a packet is looked at (netfilter).  Docker ≥ 28 drops in ``raw``, long before the
chains in which people look, so every table counts, and every variant of iptables that has rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pyflannel.firewall import nft
from pyflannel.firewall.verdict import BLOCKS, Outcome, Packet, Verdict, walk
from pyflannel.linux.lookup import Kind
from pyflannel.trace.facts import Crossing, Flow, Hop, Mood, Outer, Point

_TABLES: Final = {
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter"),
    "FORWARD": ("mangle", "filter"),
    "OUTPUT": ("raw", "mangle", "nat", "filter"),
    "POSTROUTING": ("mangle", "nat"),
}
"""In the order of the kernel."""
CLIENT_PORT: Final = 40000
"""Stands for the port of whoever begins, one of those that the kernel hands out."""
_TRANSLATES: Final = (" -j MASQUERADE", " -j SNAT", " -j DNAT", " -j REDIRECT", " -j NETMAP")
_DEEDS: Final = {Outcome.DROP: "drops", Outcome.REJECT: "rejects"}
_RAW_REMEDY: Final = (
    "if Docker (28 or later) made this rule: flannelctl docker configure has it let the overlay in "
    "(--allow-direct-routing), then systemctl restart docker"
)


def passage(hook: str, crossing: Crossing, packet: Packet) -> Iterator[Hop]:
    """What the firewall does with ``packet`` at ``hook``: one hop if it passes, else where it ends."""
    deciding = ""
    for table in _TABLES[hook]:
        if table == "nat" and packet.state != "NEW":
            # Only the first packet of a connection is looked at there.
            continue
        for rules in crossing.tables.rulesets:
            verdict = walk(rules, table, hook, packet)
            if verdict.outcome in BLOCKS:
                yield _stop(table, hook, verdict)
                return
            if verdict.outcome is Outcome.UNCERTAIN:
                doubts = "; ".join(verdict.uncertain)
                text = f"{hook} of table {table} may stop it, depending on: {doubts}"
                yield Hop(Point.FIREWALL, Mood.UNSURE, text)
            elif any(word in verdict.rule for word in _TRANSLATES):
                yield Hop(
                    Point.FIREWALL, Mood.NOTE, f"{hook} of table {table} gives it other addresses: {verdict.rule}"
                )
            elif table == "filter":
                deciding = deciding or verdict.rule
    native = _native(hook, crossing, packet)
    if native is not None:
        yield native
    if crossing.tables.trouble:
        yield Hop(Point.FIREWALL, Mood.UNSURE, f"what {hook} does is not known: {crossing.tables.trouble}")
    elif deciding and native is None:
        yield Hop(Point.FIREWALL, Mood.PASS, f"{hook} lets it pass: {deciding}")


def _native(hook: str, crossing: Crossing, packet: Packet) -> Hop | None:
    """What the tables do that others keep with nftables itself; None if they let it pass as it is."""
    place = f"at {hook.lower()}"
    verdict = nft.walk(crossing.tables.native, hook.lower(), packet)
    if verdict.outcome in BLOCKS:
        text = f"nftables {_DEEDS[verdict.outcome]} it {place}: {verdict.rule}"
        return Hop(Point.FIREWALL, Mood.END, text, _native_remedy(hook, verdict.rule))
    if verdict.outcome is Outcome.UNCERTAIN:
        text = f"nftables may stop it {place}, depending on: {'; '.join(verdict.uncertain)}"
        return Hop(Point.FIREWALL, Mood.UNSURE, text)
    rule = _native_translation(hook, crossing, packet)
    return Hop(Point.FIREWALL, Mood.NOTE, f"nftables gives it other addresses {place}: {rule}") if rule else None


def _stop(table: str, hook: str, verdict: Verdict) -> Hop:
    text = f"{hook} of table {table} {_DEEDS[verdict.outcome]} it: {verdict.rule}"
    return Hop(Point.FIREWALL, Mood.END, text, _remedy(table, hook))


def _remedy(table: str, hook: str) -> str:
    if table == "raw" and hook == "PREROUTING":
        return _RAW_REMEDY
    if hook == "FORWARD":
        return "flanneld allows it where it runs with -iptables-forward-rules; a rule that stands before has to go"
    return f"take the rule away, or accept the packet before it: iptables -t {table} -I {hook} ... -j ACCEPT"


def _native_remedy(hook: str, rule: str) -> str:
    if " docker-bridges " not in rule:
        return "take the rule away, or accept the packet before it, in that very table"
    if hook == "PREROUTING":
        return _RAW_REMEDY
    return (
        "take firewall-backend out of /etc/docker/daemon.json and restart Docker, or mark packets of the network and "
        "have dockerd let those pass (--bridge-accept-fwmark)"
    )


def _native_translation(hook: str, crossing: Crossing, packet: Packet) -> str:
    """The rule of theirs by which a packet gets other addresses; empty if none does."""
    first = packet.state == "NEW"
    return nft.walk(crossing.tables.native, hook.lower(), packet, "nat").rule if first else ""


def inner(crossing: Crossing, flow: Flow) -> Packet:
    """The packet itself, as rules see it on its way through this host."""
    entry, leaves = crossing.entry, crossing.leaves
    local = crossing.routed.kind is Kind.LOCAL
    client = None if flow.port is None else CLIENT_PORT
    return Packet(
        flow.source,
        flow.destination,
        None if entry is None else entry.name,
        None if leaves is None else leaves.name,
        flow.protocol,
        source_port=flow.port if flow.reply else client,
        destination_port=client if flow.reply else flow.port,
        state="ESTABLISHED" if flow.reply else "NEW",
        source_type="LOCAL" if entry is None else "UNICAST",
        destination_type="LOCAL" if local else "UNICAST" if crossing.routed.kind is Kind.UNICAST else None,
        reverse_path=None if entry is None or crossing.back is None else crossing.back.index == entry.index,
    )


def around(outer: Outer, in_device: str | None, out_device: str | None) -> Packet:
    """The packet around it: hosts have talked before, as far as connection tracking goes, or they have not."""
    here = in_device is not None
    return replace(
        Packet(outer.source, outer.destination, in_device, out_device),
        protocol="udp" if outer.port is not None else "ipip",
        destination_port=outer.port,
        source_type="UNICAST" if here else "LOCAL",
        destination_type="LOCAL" if here else "UNICAST",
    )


def disguise(crossing: Crossing, flow: Flow) -> bool:
    """Whether the packet leaves with the address of this host for its source."""
    if flow.reply or crossing.leaves is None:
        return False
    packet = inner(crossing, flow)
    verdicts = (walk(rules, "nat", "POSTROUTING", packet) for rules in crossing.tables.rulesets)
    return any(" -j MASQUERADE" in verdict.rule for verdict in verdicts) or (
        " masquerade" in _native_translation("POSTROUTING", crossing, packet)
    )
