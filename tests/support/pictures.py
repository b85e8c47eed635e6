"""What the kernel of a host holds, as ip(8), bridge(8) and iptables-save(8) tell it, in a form that can be compared.

A picture has two halves: what is the agent's, and what is anybody else's.  Anything that no half should lose or gain is
in it; interface indices are left out of our half, as a device of ours may have to be made anew, and are in the other,
since nobody else's may.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from ipaddress import IPv4Network

from tests.support.namespaces import Namespace

DEVICE = "flannel.1"
NETWORK = IPv4Network("10.2.0.0/16")

_LINK = ("ifname", "address", "mtu", "link", "master")
_VXLAN = ("id", "local", "group", "link", "port", "learning", "gbp", "ttl", "proxy", "l2miss", "l3miss")
_ROUTE = ("type", "dst", "gateway", "dev", "table", "protocol", "scope", "prefsrc", "metric", "metrics")
_FDB = ("ifname", "mac", "dst", "port", "vni", "via", "state")


@dataclass(frozen=True, slots=True)
class Half:
    """Objects of the kernel, one a line."""

    links: tuple[str, ...]
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    neighbours: tuple[str, ...]
    fdb: tuple[str, ...]
    rules: tuple[str, ...]
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that matters on one host."""

    ours: Half
    """flannel.1, what is on it and concerns the network, and every line that names a chain of flannel's."""
    foreign: Half


def picture(space: Namespace) -> Picture:
    """What ``space`` holds now.  It takes several listings, so what changes meanwhile may be seen in part."""
    settings, rules = _texts(space)
    links = [link for link in space.objects("ip -j -d link show") if link["ifname"] != "lo"]
    tables = [
        _split((_link(link), link["ifname"] == DEVICE) for link in links),
        _split(_addresses(space)),
        _split(_routes(space)),
        _split(_neighbours(space)),
        _split(_fdb(space)),
        _split(_rules(rules)),
        (settings, ()),
    ]
    return Picture(Half(*(ours for ours, _ in tables)), Half(*(foreign for _, foreign in tables)))


def _split(lines: Iterable[tuple[str, bool]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    held = list(lines)
    return tuple(line for line, ours in held if ours), tuple(line for line, ours in held if not ours)


def _words(entry: Mapping[str, object], keys: Iterable[str]) -> str:
    return " ".join(f"{key}={entry[key]}" for key in keys if key in entry)


def _link(link: Mapping[str, object]) -> str:
    kind, data = "", dict[str, object]()
    match link.get("linkinfo"):
        case {"info_kind": str(kind), "info_data": dict(data)}:
            pass
        case {"info_kind": str(kind)}:
            pass
    flags = link["flags"]
    assert isinstance(flags, list)
    own = "" if link["ifname"] == DEVICE else f" index={link['ifindex']}"
    settings = f" [{_words(data, _VXLAN)}]" if kind == "vxlan" else ""
    return f"{_words(link, _LINK)} kind={kind} up={'UP' in flags}{settings}{own}"


def _addresses(space: Namespace) -> Iterable[tuple[str, bool]]:
    for link in space.objects("ip -j -4 address show"):
        held = link["addr_info"]
        assert isinstance(held, list)
        for each in held:
            # With every ``ip -j`` an empty object stands for what a filter left out.
            if each:
                inside = IPv4Network(each["local"]).subnet_of(NETWORK)
                yield f"{link['ifname']} {each['local']}/{each['prefixlen']}", link["ifname"] == DEVICE and inside


def _routes(space: Namespace) -> Iterable[tuple[str, bool]]:
    """In the order of the kernel where two have one destination: that order decides which of them is used."""
    for route in space.objects("ip -j -d -4 route show table all"):
        destination = str(route["dst"]).replace("default", "0.0.0.0/0")
        inside = IPv4Network(destination).overlaps(NETWORK) and destination != "0.0.0.0/0"
        flags = route.get("flags", [])
        assert isinstance(flags, list)
        line = f"{_words(route, _ROUTE)}{' onlink' if 'onlink' in flags else ''}"
        yield line, route.get("dev") == DEVICE and inside


def _neighbours(space: Namespace) -> Iterable[tuple[str, bool]]:
    """Only what somebody has set: the kernel's own findings come and go."""
    found = space.objects("ip -j -4 neigh show nud permanent")
    for each in sorted(found, key=str):
        yield f"{each['dev']} {each['dst']} {each.get('lladdr')}", each["dev"] == DEVICE


def _fdb(space: Namespace) -> Iterable[tuple[str, bool]]:
    """Only entries of vxlan devices, which have a destination."""
    found = [each for each in space.objects("bridge -j fdb show") if "dst" in each]
    yield from sorted((_words(each, _FDB), each["ifname"] == DEVICE) for each in found)


def _rules(lines: Iterable[str]) -> Iterable[tuple[str, bool]]:
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        else:
            yield f"{table}: {line}", "FLANNEL-" in line


def _texts(space: Namespace) -> tuple[tuple[str, ...], list[str]]:
    """Our settings, and the rules of iptables as they are saved, without comments and counters."""
    setting = f"/proc/sys/net/ipv6/conf/{DEVICE}/accept_ra"
    script = f"cat {setting} 2>/dev/null || echo none; exec iptables-save"
    # nsenter takes a fifth of the time that ``ip netns exec`` needs for its mounts.
    inside = ["nsenter", f"--net={space.path}", "sh", "-c", script]
    done = subprocess.run(inside, capture_output=True, text=True, check=True)
    value, *saved = (line.partition(" [")[0] for line in done.stdout.splitlines())
    return (f"accept_ra={value}",), [line for line in saved if line and line[0] != "#" and line != "COMMIT"]


def rules(space: Namespace) -> list[str]:
    """All rules of iptables in their order, somebody's among ours."""
    return _texts(space)[1]


def differences(before: Half, after: Half) -> list[str]:
    """The lines that went (``-``) and came (``+``), and the kinds of which only the order changed (``~``)."""
    told: list[str] = []
    for kind, old, new in zip(Half.__slots__, astuple(before), astuple(after), strict=True):
        told += [f"- {line}" for line in old if line not in new]
        told += [f"+ {line}" for line in new if line not in old]
        if set(old) == set(new) and old != new:
            told.append(f"~ {kind} in another order or number: {', '.join(new)}")
    return told
