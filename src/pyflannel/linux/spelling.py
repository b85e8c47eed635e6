"""Operations as an administrator would type them.

For messages, for ``plan`` and for the logs of tests: whoever reads of an operation can try it by hand.  Nothing here is
ever executed.
"""

from __future__ import annotations

from pyflannel.diff import Op, Put, must_rebuild
from pyflannel.state import (
    PROTO_BOOT,
    Address,
    ChecksumOffload,
    FdbEntry,
    Forwarder,
    Forwarding,
    Hook,
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
from pyflannel.wireguard import WireguardDevice, WireguardPeer


def spell(op: Op) -> str:
    """One operation as a command of ip(8), bridge(8) or sysctl(8); what no program does, as one of them might."""
    item = op.item
    if isinstance(item, Link | Misfit):
        return _link(op)
    if isinstance(item, Sysctl | ChecksumOffload):
        return _setting(item)
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
        case Hook():
            return _hook(op, item)
        case WireguardDevice():
            key, port = ("(hidden)", item.listen_port) if isinstance(op, Put) else ("/dev/null", 0)
            return f"wg set {item.dev} private-key {key} listen-port {port}"
        case WireguardPeer():
            return f"wg set {item.dev} {_peer(op, item)}"


def _setting(item: Sysctl | ChecksumOffload) -> str:
    if isinstance(item, ChecksumOffload):
        return f"ethtool -K {item.dev} tx-checksum-ip-generic {'on' if item.on else 'off'}"
    return f"sysctl -w net.{item.family}.conf.{item.dev.replace('.', '/')}.{item.name}={item.value}"


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


def _hook(op: Op, item: Hook) -> str:
    """The name of the command and whom it is about; not the command itself, for there may be a secret in it."""
    command = "SubnetAddCommand" if isinstance(op, Put) else "SubnetRemoveCommand"
    subnets = " ".join(str(net) for net in (item.subnet, item.subnet_v6) if net is not None)
    hosts = " ".join(str(host) for host in (item.host, item.host_v6) if host is not None)
    return f"{command} {subnets} via {hosts}"


def _peer(op: Op, item: WireguardPeer) -> str:
    """A peer with its settings, and the one it takes the place of; a key that is shared is named and not told."""
    if not isinstance(op, Put):
        return f"peer {item.public_key} remove"
    words = [f"peer {item.public_key}"]
    words += [] if item.endpoint is None else [f"endpoint {item.endpoint}"]
    words += [f"allowed-ips {','.join(sorted(map(str, item.allowed)))}"] if item.allowed else []
    words += [f"persistent-keepalive {item.keepalive}"] if item.keepalive else []
    words += [] if item.psk is None else ["preshared-key (hidden)"]
    if isinstance(op.old, WireguardPeer) and op.old.key != item.key:
        words.append(f"peer {op.old.public_key} remove")
    return " ".join(words)


def _link(op: Op) -> str:
    item = op.item
    if not isinstance(op, Put) or not isinstance(item, Link):
        return f"ip link del {_present_name(item)}"
    if op.old is None or (isinstance(op.old, Misfit) and op.old.foreign):
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
    if isinstance(item.spec, Ipip):
        words.append("nopmtudisc")
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
