"""What the firewall does with packets of the overlay: both variants of iptables, and the tables that other programs
keep with nftables itself.  A packet has to pass all of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Final

from pyflannel.doctor.crossings import NATIVE, Crossing, crossings, elsewhere, judges, outer_devices
from pyflannel.doctor.facts import Facts, Tables, read_address, read_network
from pyflannel.doctor.findings import Argv, Check, Sign
from pyflannel.firewall import nft
from pyflannel.firewall.iptables import parse_save, removal
from pyflannel.firewall.rules import OWNED
from pyflannel.firewall.verdict import BLOCKS, Outcome, Packet, Ruleset, parse, walk
from pyflannel.health import Severity
from pyflannel.state import IPAddress, IPNetwork

OWN_CHAINS: Final = frozenset(name for _, name in OWNED)
GO_TABLES: Final = frozenset(("ip flannel-ipv4", "ip6 flannel-ipv6"))
"""What Go flanneld leaves where it was told to use nftables (compat §6.5)."""
MOST_PEERS: Final = 16
"""Of how many peers the packets are tried: rules that tell hosts of one network apart are rare."""
MOST_CONTAINERS: Final = 32
"""Likewise of containers: Docker treats all of a network alike."""
_DIRECT: Final = re.compile(r"-d (\S+) ")
_PROTOCOL: Final = re.compile(r"-p (\S+) ")
_PORT: Final = re.compile(r"--dport (\d+) ")
_HIDES: Final = re.compile(r" -j (?:MASQUERADE|SNAT)\b| (?:masquerade|snat)\b")
_DOCKERS: Final = ("ip docker-bridges ", "ip6 docker-bridges ")
"""How rules of Docker's own tables begin; it keeps some with ``firewall-backend`` nftables, from version 29 on."""
_PUBLISHED: Final = (
    "With its firewall backend nftables Docker drops what no container publishes, and what flannel accepts does not "
    "undo that. Take firewall-backend out of /etc/docker/daemon.json and restart Docker. Or give dockerd "
    "--bridge-accept-fwmark=1 and mark what is from the network before Docker sees it, in a table of your own: in a "
    "chain with `type filter hook forward priority filter - 1`."
)
_SPARED: Final = (
    "With its firewall backend nftables Docker masquerades also what the agent spares. Have flanneld masquerade "
    "instead: set FLANNELD_IP_MASQ=true in /etc/default/flanneld, run `flannelctl docker configure` and restart both."
)


def forward_dropped(facts: Facts) -> Iterator[Sign]:
    """A rule or policy of FORWARD that takes packets between containers."""
    for judge in judges(facts):
        blocked: dict[str, list[Crossing]] = {}
        for crossing in crossings(facts, judge.family):
            verdict = judge.ask("filter", "FORWARD", crossing.packet)
            if verdict.outcome in BLOCKS:
                blocked.setdefault(verdict.rule, []).append(crossing)
        for rule, ways in blocked.items():
            back = ", and one back," if len({way.leaves for way in ways}) > 1 else ""
            yield Sign(
                f"{judge.name} drops what is to be forwarded between containers of different hosts",
                f"{ways[0]}{back} ends at: {rule}",
                remedy=_PUBLISHED if rule.startswith(_DOCKERS) else "",
            )


def direct_access(facts: Facts) -> Iterator[Sign]:
    """What Docker drops in the table raw because it did not come from the container's own bridge."""
    version = None if facts.docker is None else facts.docker.version
    which = "" if version is None else f", Docker {version}"
    finding = "Docker drops packets that come to its containers from other hosts"
    for tables in facts.tables or ():
        rules = parse(tables.text)
        verdicts = [walk(rules, "raw", "PREROUTING", each) for each in islice(_direct(facts, rules), MOST_CONTAINERS)]
        if closed := list(dict.fromkeys(verdict.rule for verdict in verdicts if verdict.outcome in BLOCKS)):
            yield Sign(finding, f"{_some(closed)} (table raw{which})")
    native = facts.native or ()
    verdicts = [nft.walk(native, "prerouting", each) for each in islice(_named(facts, native), MOST_CONTAINERS)]
    shut = (verdict.rule for verdict in verdicts if verdict.outcome in BLOCKS and verdict.rule.startswith(_DOCKERS))
    if closed := list(dict.fromkeys(shut)):
        yield Sign(finding, f"{_some(closed)} (nftables{which})")


def _direct(facts: Facts, rules: Ruleset) -> Iterator[Packet]:
    """Packets from elsewhere to the containers, and their ports, of which rules of the table raw speak."""
    for rule in rules.saved.rules("raw", "PREROUTING"):
        target = read_network(_word(_DIRECT, rule))
        if target is None or not rule.endswith("-j DROP") or not any(_within(target, own) for own in facts.subnets):
            continue
        sender, port = elsewhere(facts, target), _word(_PORT, rule)
        if sender is not None:
            protocol, number = _word(_PROTOCOL, rule) or "icmp", None if port is None else int(port)
            for outer in outer_devices(facts, target.version):
                yield Packet(sender, target[0], outer, None, protocol, destination_port=number)


def _named(facts: Facts, tables: tuple[nft.NftTable, ...]) -> Iterator[Packet]:
    """Packets from elsewhere to the containers of which rules of nftables speak, and to one of which none may."""
    for crossing in (each for family in (4, 6) for each in crossings(facts, family) if not each.leaves):
        packet = replace(crossing.packet, out_device=None)
        yield packet
        for target in nft.destinations(tables, "prerouting"):
            if target.version == packet.source.version and any(target in own for own in facts.subnets):
                yield replace(packet, destination=target)


def port_blocked(facts: Facts) -> Iterator[Sign]:
    """A rule or policy of INPUT that takes the packets of other hosts before the tunnel sees them."""
    network, underlay = facts.network, facts.device(facts.underlay)
    if network is None or underlay is None:
        return
    for judge in judges(facts):
        port = network.port if judge.family == 4 else network.port_v6
        if port is None and network.backend != "ipip":
            continue
        shut: dict[str, list[str]] = {}
        for host in _hosts(facts, judge.family):
            here = next((each.ip for each in underlay.addresses if each.version == host.version), None)
            if here is None:
                continue
            protocol = "ipip" if port is None else "udp"
            packet = Packet(host, here, underlay.name, None, protocol, None, port, destination_type="LOCAL")
            verdict = judge.ask("filter", "INPUT", packet)
            if verdict.outcome in BLOCKS:
                shut.setdefault(verdict.rule, []).append(str(host))
        for rule, hosts in shut.items():
            what = "IP-in-IP packets" if port is None else f"UDP port {port}"
            opened = ("-p", "4") if port is None else ("-p", "udp", "--dport", str(port))
            yield Sign(
                f"{judge.name} lets no {what} of other hosts in, so nothing of the overlay arrives",
                f"a packet from {_some(hosts)} on {underlay.name} ends at: {rule}",
                # In a table of somebody's own there is no place that we could know to be the right one.
                ((judge.name, "-I", "INPUT", "-i", underlay.name, *opened, "-j", "ACCEPT"),)
                if judge.name != NATIVE
                else None,
            )


def masqueraded(facts: Facts) -> Iterator[Sign]:
    """A rule that gives a container's packets to other hosts' containers this host's address."""
    for judge in judges(facts):
        for crossing in crossings(facts, judge.family):
            if not crossing.leaves:
                continue
            verdict = judge.ask("nat", "POSTROUTING", crossing.packet)
            if verdict.outcome is Outcome.ACCEPT and _HIDES.search(verdict.rule):
                yield Sign(
                    "containers appear to those of other hosts under this host's address",
                    f"{crossing} meets, in {judge.name}: {verdict.rule}",
                    remedy=_SPARED if verdict.rule.startswith(_DOCKERS) else "",
                )
                break


def mixed_variants(facts: Facts) -> Iterator[Sign]:
    """Rules in the variant of iptables that plain ``iptables`` does not show."""
    for tables in facts.tables or ():
        rules = [] if tables.usual else _foreign_rules(tables)
        if rules:
            plain = "iptables" if tables.family == 4 else "ip6tables"
            yield Sign(
                f"two variants of {plain} are in use, and every packet has to pass both",
                f"{tables.program} holds {_some(rules)}; {plain} -S does not show that",
            )


def stale_rules(facts: Facts) -> Iterator[Sign]:
    """Chains and tables of a former run, which the agent of today does not keep."""
    if facts.status is None:
        return
    for tables in facts.tables or ():
        faults = () if tables.usual else removal(parse_save(tables.text))
        if faults:
            steps = tuple(
                (tables.program, "-t", fault.table, *shlex.split(line)) for fault in faults for line in fault.mend
            )
            yield Sign(
                f"chains of flannel are left in {tables.program}, where nobody keeps them any more",
                "; ".join(f"{fault.text} (table {fault.table})" for fault in faults),
                steps,
            )
    for name in sorted(GO_TABLES.intersection(facts.nft_tables or ())):
        drop: Argv = ("nft", "delete", "table", *name.split())
        yield Sign(
            "a flanneld that used nftables has left its rules, which apply beside those of today",
            f"nft list tables shows: table {name}",
            (drop,),
        )


def bridge_netfilter(facts: Facts) -> Iterator[Sign]:
    """kube-proxy's rules, and bridges that pass them by."""
    for family, name in ((4, "iptables"), (6, "ip6tables")):
        value = facts.sysctls.get(f"net/bridge/bridge-nf-call-{name}")
        kube = any(
            tables.family == family and parse_save(tables.text).rules("nat", "KUBE-SERVICES")
            for tables in facts.tables or ()
        )
        if not kube or value in (None, "1"):
            continue
        setting = f"net.bridge.bridge-nf-call-{name}"
        steps: tuple[Argv, ...] = (("sysctl", "-w", f"{setting}=1"),)
        yield Sign(
            "answers between two containers of this host miss kube-proxy's translation of service addresses",
            f"{setting} is {value or 'not there: br_netfilter is not loaded'}, and the table nat has KUBE-SERVICES",
            steps if value else (("modprobe", "br_netfilter"), *steps),
        )


def _hosts(facts: Facts, family: int) -> tuple[IPAddress, ...]:
    addresses = (read_address(peer.public_ip if family == 4 else peer.public_ipv6) for peer in facts.peers)
    return tuple(each for each in addresses if each is not None and each.version == family)[:MOST_PEERS]


def _foreign_rules(tables: Tables) -> list[str]:
    saved = parse_save(tables.text)
    return [
        f"-A {name} {rule}"
        for (_, name), rules in saved.chains.items()
        if name not in OWN_CHAINS
        for rule in rules
        if not any(rule.endswith(f"-j {own}") for own in OWN_CHAINS)
    ]


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    match inner, outer:
        case (IPv4Network(), IPv4Network()) | (IPv6Network(), IPv6Network()):
            return inner.subnet_of(outer)  # type: ignore[arg-type]
        case _:
            return False


def _word(pattern: re.Pattern[str], rule: str) -> str | None:
    found = pattern.search(f"{rule} ")
    return None if found is None else found[1]


def _some(texts: list[str]) -> str:
    """The first, and how many more there are."""
    return texts[0] + (f" and {len(texts) - 1} more" if len(texts) > 1 else "")


_WARNING, _ERROR = Severity.WARNING, Severity.ERROR
CHECKS: Final = (
    Check(
        "forward-dropped",
        _ERROR,
        "The firewall drops what is forwarded between containers",
        "A packet between containers of two hosts is forwarded by both, and a rule or the policy of FORWARD ends it "
        "here. Docker's policy is DROP; the agent's own rules come first and accept, unless somebody stands before "
        "them or no agent keeps them. What another program drops in a table that it keeps with nftables itself, as "
        "firewalld does, no rule of iptables undoes.",
        "Take out the rule that is named, or put an exception for the network before it (firewalld: make the network a "
        "source of the zone trusted). If the agent's rules are missing, start the agent; if it runs with "
        "-iptables-forward-rules=false, the rules are yours to write.",
        forward_dropped,
    ),
    Check(
        "docker-direct-access",
        _ERROR,
        "Docker 28 and later keep other hosts away from containers",
        "Since version 28 Docker drops packets for a container that come in by any other way than its own bridge: in "
        "the table raw or, with its firewall backend nftables, at the same place in its own table. Nothing in FORWARD "
        "or DOCKER-USER can allow them, for that comes first.",
        "`flannelctl docker configure` writes the option that lets them in, --allow-direct-routing from 28.2 on and "
        "DOCKER_INSECURE_NO_IPTABLES_RAW=1 before; restart Docker then. For a network of your own, the option "
        "com.docker.network.bridge.trusted_host_interfaces names the devices it takes packets from.",
        direct_access,
    ),
    Check(
        "port-blocked",
        _ERROR,
        "The firewall drops the packets of the tunnel",
        "Other hosts send to a port of this one, and a rule or the policy of INPUT ends their packets. Containers here "
        "may reach out and hear no answer.",
        "Open the port for the other hosts, in whatever keeps the rules of this host (firewalld, ufw, a script): what "
        "is only typed is gone after a restart.",
        port_blocked,
    ),
    Check(
        "containers-masqueraded",
        _WARNING,
        "Containers hide behind their host's address",
        "Packets to containers of other hosts get this host's address on the way out. They arrive, but nobody there "
        "sees which container they are from, and rules that go by addresses do not fit.",
        "With -ip-masq run Docker with --ip-masq=false: `flannelctl docker configure` does. Without it the agent keeps "
        "a rule that spares the network: see that it runs, and not with -iptables-forward-rules=false.",
        masqueraded,
    ),
    Check(
        "iptables-mixed",
        _WARNING,
        "Both variants of iptables hold rules",
        "The kernel has two sets of tables, legacy and nf_tables; a packet has to pass both, while each tool shows one "
        "of them. The agent, like Docker, uses the one that plain iptables is.",
        "Find out who writes the other ones, and have all use one variant (on Debian: update-alternatives --config "
        "iptables), then flush the other.",
        mixed_variants,
    ),
    Check(
        "stale-rules",
        _WARNING,
        "Rules of a former flanneld are left",
        "They are from a run with other tools, and the agent of today does not keep them: they go on accepting and "
        "masquerading by what was true then.",
        "Remove them.",
        stale_rules,
    ),
    Check(
        "bridge-netfilter-off",
        _WARNING,
        "kube-proxy needs br_netfilter",
        "kube-proxy translates the addresses of services in iptables. Packets between two containers on one bridge "
        "pass it only with br_netfilter; without, answers come from an address that nobody asked.",
        "Load the module and switch it on, for good: a file in /etc/modules-load.d and one in /etc/sysctl.d.",
        bridge_netfilter,
    ),
)
