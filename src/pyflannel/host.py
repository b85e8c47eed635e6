"""Which interface and which addresses a host uses towards the others (compat §7).

Rules of this file
  1. Facts in, choice out: who gathered the facts, and how, is the business of ``linux/facts.py``.
  2. Every choice says why it was made, and every refusal lists what there was to choose from.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeVar

from pyflannel.reach import NOBODY, Reach
from pyflannel.state import IPAddress, IPInterface, Mac

_A = TypeVar("_A", IPv4Address, IPv6Address)


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on an interface, with the flags that matter for choosing among several."""

    address: IPInterface
    deprecated: bool = False
    temporary: bool = False
    """IPv6 privacy address (RFC 8981); the kernel's IFA_F_TEMPORARY, which for IPv4 means *secondary* instead."""
    permanent: bool = True
    """False: it has a lifetime, given by DHCP or a router advertisement."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as far as choosing needs to know it."""

    index: int
    name: str
    mtu: int
    up: bool
    addresses: tuple[InterfaceAddress, ...] = ()
    """In kernel order."""
    mac: Mac | None = None


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route of the main table, in kernel order."""

    family: int
    """4 or 6."""
    dev: str | None
    """None where the route has several next hops or none, so that it names no single device."""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """The kernel's answer to ``ip route get``."""

    dev: str
    source: IPAddress | None
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a choice is made from."""

    interfaces: tuple[Interface, ...]
    defaults: tuple[DefaultRoute, ...]
    lookups: tuple[tuple[IPAddress, Lookup | None], ...] = ()
    """For each address of ``-iface-can-reach``: the answer, or None where there is no route."""


@dataclass(frozen=True, slots=True)
class Underlay:
    """The chosen interface and the addresses on it."""

    name: str
    index: int
    mtu: int
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    public_ip: IPv4Address | None
    """What we publish to the others: ``-public-ip``, or the interface's own."""
    public_ipv6: IPv6Address | None
    why: str
    """For the log: what made this one win."""
    mac: Mac | None = None
    """Of the interface, if it has one: no copy of this machine has the same."""
    on_link: Reach = NOBODY
    """Who could be a gateway; nobody where the network does not ask (``footing``)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the administrator asked for, and which families the network needs."""

    iface: tuple[str, ...] = ()
    """``-iface``, in order: interface names or addresses.  An empty entry counts as not given, as in Go flanneld."""
    iface_regex: tuple[str, ...] = ()
    """``-iface-regex``, in order; empty entries count as not given."""
    can_reach: IPAddress | None = None
    """``-iface-can-reach``."""
    public_ip: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None
    ipv4: bool = True
    ipv6: bool = False


class NoInterface(Exception):
    """No interface fits; the message lists every attempt with its outcome, and what there was to choose from."""


class _Unfit(Exception):
    """One way to an interface failed; the text says why."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An interface to try, with the addresses that the way it was found fixes."""

    interface: Interface
    why: str
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One option, or the lack of any, and how to look up what it speaks of."""

    label: str
    lookup: Callable[[], list[_Candidate]]
    explicit: bool = False
    """The administrator named the interface, so that we take it even while it is down, if all else fails."""


def choose(facts: Facts, wish: Wish) -> Underlay:
    """The interface and addresses to use: ``-iface``, then ``-iface-regex``, then ``-iface-can-reach``, in order.

    With none of them given, the owner of ``-public-ip`` (or ``-public-ipv6``), else the first default route.
    An interface that is down is passed over; one named by ``-iface`` is taken all the same when nothing else fits,
    and ``why`` then says so.  Raises ``NoInterface`` and nothing else.
    """
    tried: list[str] = []
    last_resort: Underlay | None = None
    for attempt in _attempts(facts, wish):
        reasons: list[str] = []
        for candidate in _found(attempt, reasons):
            try:
                underlay = _underlay(candidate, wish)
            except _Unfit as unfit:
                reasons.append(str(unfit))
                continue
            if candidate.interface.up:
                return underlay
            reasons.append(f"{underlay.name} is down")
            if attempt.explicit and last_resort is None:
                last_resort = replace(underlay, why=f"{underlay.why} (warning: it is down, and nothing else fits)")
        tried.append(f"{attempt.label}: {', '.join(dict.fromkeys(reasons))}")
    if last_resort is not None:
        return last_resort
    outcome = "; ".join(tried) or "the network has neither IPv4 nor IPv6"
    raise NoInterface(f"no interface to use: {outcome}. Interfaces here: {_candidates(facts, wish)}")


def lines(underlay: Underlay) -> tuple[str, ...]:
    """The log lines that people and their tools look for (compat §7.3), in flannel's words and order.

    An address published by option that equals the interface's own reads as defaulted: the two are the same then.
    """
    found: list[str] = []
    if underlay.ipv4 is not None:
        found.append(f"Using interface with name {underlay.name} and address {underlay.ipv4}")
    if underlay.ipv6 is not None:
        found.append(f"Using interface with name {underlay.name} and v6 address {underlay.ipv6}")
    for word, own, public in (
        ("", underlay.ipv4, underlay.public_ip),
        ("v6 ", underlay.ipv6, underlay.public_ipv6),
    ):
        if public is not None and public == own:
            found.append(f"Defaulting external {word}address to interface address ({own})")
        elif public is not None:
            found.append(f"Using {public} as external address")
    return tuple(found)


def _attempts(facts: Facts, wish: Wish) -> list[_Attempt]:
    """What to try, in order; the fallbacks only if no option picks an interface (compat §7.1)."""
    if not (wish.ipv4 or wish.ipv6):
        return []
    given = [
        *(_Attempt(f"-iface={entry}", partial(_named, facts, wish, entry), True) for entry in wish.iface if entry),
        *(_Attempt(f"-iface-regex={text}", partial(_matching, facts, wish, text)) for text in wish.iface_regex if text),
    ]
    if (target := wish.can_reach) is not None:
        given.append(_Attempt(f"-iface-can-reach={target}", partial(_reaching, facts, target)))
    if given:
        return given
    if wish.public_ip is not None:
        return [_Attempt(f"-public-ip={wish.public_ip}", partial(_owning, facts, wish, wish.public_ip))]
    if wish.public_ipv6 is not None:
        return [_Attempt(f"-public-ipv6={wish.public_ipv6}", partial(_owning, facts, wish, wish.public_ipv6))]
    return [_Attempt("default route", partial(_default, facts, wish))]


def _found(attempt: _Attempt, reasons: list[str]) -> list[_Candidate]:
    try:
        return attempt.lookup()
    except _Unfit as unfit:
        reasons.append(str(unfit))
        return []


def _named(facts: Facts, wish: Wish, entry: str) -> list[_Candidate]:
    """``-iface``: the owner of an address, or the interface of that name."""
    try:
        address = ip_address(entry)
    except ValueError:
        return [_Candidate(_interface(facts, entry), f"-iface={entry}")]
    return _owning(facts, wish, address)


def _owning(facts: Facts, wish: Wish, address: IPAddress) -> list[_Candidate]:
    """The interfaces that carry ``address``; in a dual-stack network ``-public-ipv6`` must be there as well."""
    if not (wish.ipv4 if address.version == 4 else wish.ipv6):
        raise _Unfit(f"the network has no IPv{address.version}")
    owners = [one for one in facts.interfaces if _carries(one, address)]
    if not owners:
        raise _Unfit("no interface carries this address")
    companion = wish.public_ipv6 if wish.ipv4 and wish.ipv6 else None
    if companion is not None:
        owners = [one for one in owners if _carries(one, companion)]
        if not owners:
            raise _Unfit(f"-public-ipv6={companion} is not on the same interface")
    return [_fixed(one, f"it carries {address}", address, companion) for one in _in_order(owners)]


def _matching(facts: Facts, wish: Wish, text: str) -> list[_Candidate]:
    """``-iface-regex``: interfaces by matching address first, then those by matching name."""
    pattern = _compile(text)
    found: list[_Candidate] = []
    for one in _in_order(facts.interfaces):
        matched = [address for address in usable(one) if pattern.search(str(address))]
        ipv4, ipv6 = _first(matched, IPv4Address), _first(matched, IPv6Address)
        if (ipv4 or not wish.ipv4) and (ipv6 or not wish.ipv6):
            which = " and ".join(str(address) for address, on in ((ipv4, wish.ipv4), (ipv6, wish.ipv6)) if on)
            found.append(_Candidate(one, f"-iface-regex={text} matches {which}", ipv4, ipv6))
    found += [
        _Candidate(one, f"-iface-regex={text} matches its name")
        for one in _in_order(facts.interfaces)
        if pattern.search(one.name)
    ]
    if not found:
        raise _Unfit("it matches no address and no name")
    return found


_POSIX_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


def _compile(text: str) -> re.Pattern[str]:
    r"""``text`` as Go's RE2 reads it, as far as names and addresses go.

    The two dialects differ little here: ``\d`` and ``\w`` are ASCII in Go, and ``[[:digit:]]`` means a class there
    while Python would take it for a set of these very characters.
    """
    with warnings.catch_warnings():
        # Python warns of the set syntax it may give a meaning to one day; RE2 takes those characters as they stand.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return re.compile(re.sub(r"\[:(\w+):\]", lambda found: _POSIX_CLASSES[found[1]], text), re.ASCII)
        except KeyError as unknown:
            raise _Unfit(f"bad regular expression: unknown class [:{unknown.args[0]}:]") from None
        except (re.error, OverflowError, RecursionError) as error:
            raise _Unfit(f"bad regular expression: {error}") from None


def _reaching(facts: Facts, target: IPAddress) -> list[_Candidate]:
    """``-iface-can-reach``: where the kernel would send a packet, and from which address."""
    lookup = dict(facts.lookups).get(target)
    if lookup is None:
        raise _Unfit("there is no route to it")
    if lookup.dev == "lo":
        raise _Unfit("it is an address of this very host")
    return [_fixed(_interface(facts, lookup.dev), f"the route to {target} leaves by it", lookup.source)]


def _default(facts: Facts, wish: Wish) -> list[_Candidate]:
    """The device of the first default route of each family needed, which must be the same."""
    firsts: list[str] = []
    rest: list[DefaultRoute] = []
    for family in [*([4] if wish.ipv4 else []), *([6] if wish.ipv6 else [])]:
        routes = [route for route in facts.defaults if route.family == family]
        if not routes:
            raise _Unfit(f"there is no IPv{family} default route")
        if routes[0].dev is None:
            raise _Unfit(f"the IPv{family} default route names no single device; say which to use with -iface")
        firsts.append(routes[0].dev)
        rest += routes[1:]
    if len(set(firsts)) > 1:
        raise _Unfit(f"IPv4 leaves by {firsts[0]}, IPv6 by {firsts[1]}; both must leave by one device")
    others = ", ".join(f"IPv{one.family} by {one.dev or 'no single device'} metric {one.metric}" for one in rest)
    why = "first default route" + (f" (others: {others})" if others else "")
    return [_Candidate(_interface(facts, firsts[0]), why)]


def _underlay(candidate: _Candidate, wish: Wish) -> Underlay:
    """``candidate`` with its addresses settled (compat §7.2, §7.3)."""
    interface, free = candidate.interface, usable(candidate.interface)
    if interface.mtu == 0:
        raise _Unfit(f"{interface.name} has MTU 0")
    ipv4 = (candidate.ipv4 or _first(free, IPv4Address)) if wish.ipv4 else None
    ipv6 = (candidate.ipv6 or _first(free, IPv6Address)) if wish.ipv6 else None
    if wish.ipv4 and ipv4 is None:
        raise _Unfit(f"{interface.name} has no usable IPv4 address")
    if wish.ipv6 and ipv6 is None:
        raise _Unfit(f"{interface.name} has no usable IPv6 address")
    return Underlay(
        name=interface.name,
        index=interface.index,
        mtu=interface.mtu,
        ipv4=ipv4,
        ipv6=ipv6,
        public_ip=(wish.public_ip or ipv4) if wish.ipv4 else None,
        public_ipv6=(wish.public_ipv6 or ipv6) if wish.ipv6 else None,
        why=candidate.why,
        mac=interface.mac,
    )


def usable(interface: Interface) -> list[IPAddress]:
    """The addresses others can reach us by, best first (compat §7.2).

    Global before link-local, then permanent before leased, then stable before temporary, then kernel order.
    """
    able = [one for one in interface.addresses if not one.deprecated and _unicast(one.address.ip)]
    able.sort(key=lambda one: (one.address.ip.is_link_local, not one.permanent, one.temporary))
    return [one.address.ip for one in able]


def _unicast(address: IPAddress) -> bool:
    """Global in Go's sense, which takes in private ranges and all that is not special, or link-local."""
    special = address.is_unspecified or address.is_loopback or address.is_multicast
    return not special and address != IPv4Address("255.255.255.255")


def _first(addresses: Iterable[IPAddress | None], family: type[_A]) -> _A | None:
    return next((address for address in addresses if isinstance(address, family)), None)


def _fixed(interface: Interface, why: str, *addresses: IPAddress | None) -> _Candidate:
    return _Candidate(interface, why, _first(addresses, IPv4Address), _first(addresses, IPv6Address))


def _carries(interface: Interface, address: IPAddress) -> bool:
    return any(one.address.ip == address for one in interface.addresses)


def _interface(facts: Facts, name: str) -> Interface:
    for one in facts.interfaces:
        if one.name == name:
            return one
    raise _Unfit(f"there is no interface {name}")


def _in_order(interfaces: Iterable[Interface]) -> list[Interface]:
    return sorted(interfaces, key=lambda one: one.index)


def _candidates(facts: Facts, wish: Wish) -> str:
    """Every interface with a usable address of a family needed, in words; the rest (veths, mostly) would be noise."""
    families = {family for family, on in ((4, wish.ipv4), (6, wish.ipv6)) if on}
    found = (
        f"{one.name} ({', '.join(map(str, usable(one)))}, MTU {one.mtu}, {'up' if one.up else 'down'})"
        for one in _in_order(facts.interfaces)
        if any(address.version in families for address in usable(one))
    )
    return "; ".join(found) or "none with a usable address"
