"""Which packets are forwarded and which get another source address, as values (compat §6.1).

Rules of this file
  1. It says what a rule means, never how a tool spells it: iptables is one spelling, nft another.
  2. Chain names, comments and the order of rules are flannel's own.  Go flanneld, of any version that has chains,
     must find its rules in ours and we ours in its, or a switch-over would leave two sets behind.

What the masquerade rules say, in their order: what kube-proxy has marked for its own masquerade is left alone;
between local containers and the network nothing is touched, so that containers see each other's own addresses;
what comes from outside for a local container keeps its source; containers talking to the outside appear as this
host, multicast aside; and this host, or the outside by way of it, appears as this host to *remote* containers,
so that their answers come back through here.

One chain flannel does not have.  Without ``-ip-masq`` the masquerading is somebody else's, Docker's as a rule, who
masquerades whatever leaves his bridge, what goes to another host's containers included, and so would hide containers
from one another behind their hosts' addresses.  FLANNEL-NOMASQ takes exactly that out of it (docs/adr/0005).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, TypeAlias

from pyflannel.state import IPNetwork

Table: TypeAlias = Literal["nat", "filter"]
Hook: TypeAlias = Literal["POSTROUTING", "FORWARD"]

MASQUERADE_CHAIN: Final = "FLANNEL-POSTRTG"
PLAIN_CHAIN: Final = "FLANNEL-NOMASQ"
FORWARD_CHAIN: Final = "FLANNEL-FWD"
OWNED: Final[tuple[tuple[Table, str], ...]] = (
    ("nat", MASQUERADE_CHAIN),
    ("nat", PLAIN_CHAIN),
    ("filter", FORWARD_CHAIN),
)
"""Every chain that is ours, with its table: all that clean-up may remove."""

_MULTICAST: Final[dict[int, IPNetwork]] = {4: IPv4Network("224.0.0.0/4"), 6: IPv6Network("ff00::/8")}


@dataclass(frozen=True, slots=True)
class Match:
    """An address inside ``network``, or outside it."""

    network: IPNetwork
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A packet mark whose bits under ``mask`` equal ``value``."""

    value: int
    mask: int


KUBE_PROXY_MARK: Final = Mark(0x4000, 0x4000)
"""Set by kube-proxy on what it will masquerade itself."""


class Verdict(Enum):
    """What becomes of a packet, in the words of iptables(8)."""

    ACCEPT = "ACCEPT"
    RETURN = "RETURN"


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Take the address of the outgoing interface for the source."""

    random_fully: bool
    """Choose source ports at random: otherwise two connections can race for one port and lose packets (#1004)."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain."""

    chain: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: all conditions must hold, and a condition that is None always does."""

    comment: str
    target: Verdict | Masquerade | Jump
    source: Match | None = None
    destination: Match | None = None
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours, whole and in order, and the kernel's chain that leads to it."""

    table: Table
    name: str
    hook: Hook
    comment: str
    rules: tuple[Rule, ...]
    first: bool
    """Whether the jump must come before others' rules in ``hook``, since they would decide in another way."""

    @property
    def jump(self) -> Rule:
        """The rule which ``hook`` must hold exactly once."""
        return Rule(self.comment, Jump(self.name))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What is wanted of our chains in one address family; those it does not name may be there or not."""

    family: Literal[4, 6]
    chains: tuple[Chain, ...]
    superseded: tuple[tuple[Table, str], ...] = ()
    """Chains that may not be there, as a run with other options made them and they say the opposite."""


def rules(network: IPNetwork, subnet: IPNetwork, *, masquerade: bool, forward: bool, random_fully: bool) -> RuleSet:
    """The rules of a host that leases ``subnet`` of ``network``, which must be of one family (``ValueError``).

    ``masquerade`` and ``forward`` are ``-ip-masq`` and ``-iptables-forward-rules``; with neither, the tables are none
    of our business.  ``random_fully`` is the caller's to know: whether the host's tools can do it, and
    ``-ip-masq-fully-random-disable`` does not forbid it.
    """
    if network.version != subnet.version:
        raise ValueError(f"subnet {subnet} and network {network} are of different families")
    translation: list[Chain] = []
    superseded: list[tuple[Table, str]] = []
    if masquerade:
        translation.append(_masquerade(network, subnet, random_fully))
        superseded.append(("nat", PLAIN_CHAIN))
    elif forward:
        translation.append(_plain(network, subnet))
        superseded.append(("nat", MASQUERADE_CHAIN))
    forwarding = [_forward(network)] if forward else []
    return RuleSet(network.version, (*translation, *forwarding), tuple(superseded))


def _masquerade(network: IPNetwork, subnet: IPNetwork, random_fully: bool) -> Chain:
    comment = "flanneld masq"
    inside, outside, local = Match(network), Match(network, negated=True), Match(subnet)
    unicast = Match(_MULTICAST[network.version], negated=True)
    disguise = Masquerade(random_fully)
    return Chain(
        "nat",
        MASQUERADE_CHAIN,
        "POSTROUTING",
        comment,
        (
            Rule(comment, Verdict.RETURN, mark=KUBE_PROXY_MARK),
            Rule(comment, Verdict.RETURN, source=local, destination=inside),
            Rule(comment, Verdict.RETURN, source=inside, destination=local),
            Rule(comment, Verdict.RETURN, source=outside, destination=local),
            Rule(comment, disguise, source=inside, destination=unicast),
            Rule(comment, disguise, source=outside, destination=inside),
        ),
        first=False,
    )


def _plain(network: IPNetwork, subnet: IPNetwork) -> Chain:
    """Local containers show remote ones their own address.

    What kube-proxy has marked, and what stays among the local ones, is left to others: Docker masquerades a container
    that calls a port which it publishes itself, or its answer would never find back.
    """
    comment = "flanneld nomasq"
    local = Match(subnet)
    return Chain(
        "nat",
        PLAIN_CHAIN,
        "POSTROUTING",
        comment,
        (
            Rule(comment, Verdict.RETURN, mark=KUBE_PROXY_MARK),
            Rule(comment, Verdict.RETURN, source=local, destination=local),
            Rule(comment, Verdict.ACCEPT, source=local, destination=Match(network)),
        ),
        first=True,
    )


def _forward(network: IPNetwork) -> Chain:
    comment = "flanneld forward"
    return Chain(
        "filter",
        FORWARD_CHAIN,
        "FORWARD",
        comment,
        (
            Rule(comment, Verdict.ACCEPT, source=Match(network)),
            Rule(comment, Verdict.ACCEPT, destination=Match(network)),
        ),
        first=True,
    )
