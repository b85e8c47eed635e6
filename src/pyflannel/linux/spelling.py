"""Operations as an administrator would type them.

For messages, for ``plan`` and for the logs of tests: whoever reads of an operation can try it by hand.  Nothing here is
ever executed.
"""

from __future__ import annotations

from pyflannel.diff import Op, Put, must_rebuild
from pyflannel.state import (
    PROTO_BOOT,
    Address,
    FdbEntry,
    Forwarder,
    Forwarding,
    Ipip,
    Item,
    Link,
    Misfit,
    Neighbour,
    Route,
    Spec,
    Sysctl,
    Vxlan,
)


def spell(op: Op) -> str:
    """One operation as a command of ip(8), bridge(8) or sysctl(8); what no program does, as one of them might."""
    item = op.item
    if isinstance(item, Link | Misfit):
        return _link(op)
    if isinstance(item, Sysctl):
        return f"sysctl -w net.{item.family}.conf.{item.dev.replace('.', '/')}.{item.name}={item.value}"
    verb = "del" if not isinstance(op, Put) else "add" if op.old is None else "replace"
    match item:
        case Address():
            return f"ip address {verb} {item.address} dev {item.dev}"
        case Neighbour():
            return f"ip neigh {verb} {item.ip} lladdr {item.mac} dev {item.dev} nud permanent"
        case FdbEntry():
            return f"bridge fdb {verb} {item.mac} dev {item.dev} dst {item.dst} self permanent"
        case Forwarder():
            return f"tunnel {verb} {item.subnet} dev {item.dev} local {item.listen} port {item.port}"
        case Forwarding():
            return f"tunnel route {verb} {item.subnet} dev {item.dev} remote {item.host} port {item.port}"
        case Route():
            return f"ip route {verb} {route(item)}"


def route(item: Route) -> str:
    """A route as ``ip route`` lists it, defaults left out."""
    words = [str(item.dst)]
    if item.via is not None:
        family = "" if item.via.version == item.dst.version else f"inet{'' if item.via.version == 4 else '6'} "
        words.append(f"via {family}{item.via}")
    words.append(f"dev {item.dev}")
    if item.protocol != PROTO_BOOT:
        words.append(f"proto {item.protocol}")
    if item.metric:
        words.append(f"metric {item.metric}")
    if item.universe:
        words.append("scope global")
    if item.onlink:
        words.append("onlink")
    return " ".join(words)


def _link(op: Op) -> str:
    item = op.item
    if not isinstance(op, Put) or not isinstance(item, Link):
        return f"ip link del {_present_name(item)}"
    if op.old is None:
        return _creation(item)
    if must_rebuild(item, op.old):
        return f"ip link del {_present_name(op.old)} && {_creation(item)}"
    old_name = _present_name(op.old)
    name = item.name if old_name == item.name else f"{old_name} name {item.name}"
    settings = _changeable(item.spec)
    return f"ip link set {name} {_state(item)}" + (f" type {_kind(item.spec)} {settings}" if settings else "")


def _present_name(item: Item) -> str:
    if isinstance(item, Link):
        return item.misnamed or item.name
    return item.name if isinstance(item, Misfit) else item.dev


def _creation(item: Link) -> str:
    words = [f"ip link add {item.name} {_state(item)} type {_kind(item.spec)}"]
    if isinstance(item.spec, Vxlan):
        words.append(f"id {item.spec.vni} dstport {item.spec.port}")
    words += filter(None, [_changeable(item.spec)])
    if isinstance(item.spec, Vxlan) and item.spec.gbp:
        words.append("gbp")
    return " ".join(words)


def _kind(spec: Spec) -> str:
    return type(spec).__name__.lower()


def _state(item: Link) -> str:
    mac = "" if item.mac is None else f" address {item.mac}"
    return f"{'up' if item.up else 'down'} mtu {item.mtu}{mac}"


def _changeable(spec: Spec) -> str:
    """The settings that can change while packets flow."""
    words = []
    if isinstance(spec, Vxlan | Ipip):
        words += [f"dev {spec.underlay}"] if spec.underlay else []
        words += [] if spec.local is None else [f"local {spec.local}"]
    if isinstance(spec, Vxlan):
        words.append("learning" if spec.learning else "nolearning")
    return " ".join(words)
