"""The status document, filled from the parts of the agent.

Whatever takes long is done in portions, between which the agent goes on: a route is not to wait for a description.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Final

from pyflannel import __version__
from pyflannel.backends.api import View
from pyflannel.health import Condition
from pyflannel.lease.model import Lease, Subnet
from pyflannel.lease.network import ConfigError
from pyflannel.linux.counters import Traffic
from pyflannel.network import Network
from pyflannel.probes.sight import Sight
from pyflannel.settings import Settings
from pyflannel.state import Forwarder, IPAddress, IPNetwork, Item, Key, Link, Vxlan
from pyflannel.telemetry import traffic
from pyflannel.telemetry.desk import Desk, Parts
from pyflannel.telemetry.document import (
    AgentPart,
    ConditionPart,
    DevicePart,
    Document,
    FirewallPart,
    HostPart,
    KernelPart,
    LeasePart,
    NetworkPart,
    OutputsPart,
    PeerPart,
    State,
    StorePart,
)
from pyflannel.wireguard import WireguardDevice

PORTION: Final = 100
"""Peers described without a break: about a millisecond's work."""

_SECRET: Final = re.compile(r"//[^/@]*@")
"""Who we are to a store, in an address."""


async def describe(desk: Desk) -> Document:
    """All there is to say of the process now."""
    settings, parts = desk.settings, desk.parts
    agent = AgentPart(__version__, os.getpid(), desk.started, desk.phase)
    host, network = HostPart(name=os.uname().nodename), NetworkPart(settings.etcd_prefix)
    conditions = tuple(_condition(each) for each in desk.health.present())
    store, outputs = _store(desk), OutputsPart(settings.subnet_file)
    if parts is None:
        return Document(agent=agent, host=host, network=network, store=store, outputs=outputs, conditions=conditions)
    devices = traffic.of_devices(parts.network)
    return Document(
        agent=agent,
        host=_host(host.name, parts.network.view),
        network=_network(settings, parts.network),
        devices=tuple(DevicePart(dev, *_counts(passed)) for dev, passed in devices.items()),
        lease=_lease(parts),
        store=store,
        kernel=_kernel(parts),
        firewall=FirewallPart(parts.guard.wanted, parts.guard.ok),
        outputs=OutputsPart(settings.subnet_file, parts.publisher.ready),
        peers=await _peers(parts, Path(settings.subnet_file).parent),
        conditions=conditions,
    )


def _host(name: str, view: View) -> HostPart:
    under = view.underlay
    return HostPart(name, under.name, _text(under.public_ip), _text(under.public_ipv6), under.mtu)


def _network(settings: Settings, network: Network) -> NetworkPart:
    config, backend = network.view.config, network.backend
    try:
        mtu = backend.mtu(network.view.underlay)
    except ConfigError:
        mtu = None
    port, vni = _port(network.self_items())
    return NetworkPart(
        prefix=settings.etcd_prefix,
        ipv4=None if config.ipv4 is None else str(config.ipv4.network),
        ipv6=None if config.ipv6 is None else str(config.ipv6.network),
        backend=config.backend_type,
        device=next(iter(backend.devices), None),
        mtu=mtu,
        port=port,
        vni=vni,
    )


def _port(items: Iterable[Item]) -> tuple[int | None, int | None]:
    """The UDP port of the tunnel, and the VNI."""
    for item in items:
        match item:
            case Link(spec=Vxlan(port=port, vni=vni)):
                return port, vni
            case WireguardDevice(listen_port=port) | Forwarder(port=port):
                return port, None
    return None, None


def _lease(parts: Parts) -> LeasePart:
    keeper, now = parts.keeper, time.time()
    own = parts.network.view.own
    return LeasePart(
        subnet=_text(own.ipv4),
        ipv6_subnet=_text(own.ipv6),
        expires=None if keeper.left is None else now + keeper.left,
        reserved=keeper.lease.reservation,
        renewed=now - keeper.age,
    )


def _store(desk: Desk) -> StorePart:
    settings, meter = desk.settings, desk.meter
    return StorePart(
        kind=desk.parts.kind if desk.parts is not None else "",
        endpoints=(settings.store,)
        if settings.store
        else tuple(_SECRET.sub("//", each) for each in settings.etcd_endpoints),
        answers=meter.answers,
        since=meter.since,
        errors=meter.errors.total(),
        heard=meter.heard,
    )


def _kernel(parts: Parts) -> KernelPart:
    reconciler = parts.reconciler
    repairs = Counter[str]()
    for (_, kind), times in reconciler.tally.repairs.items():
        repairs[kind] += times
    return KernelPart(
        wanted=_by_kind(reconciler.wanted),
        failed=_by_kind(reconciler.failing),
        audits={str(reason): times for reason, times in reconciler.tally.audits.items()},
        repairs=dict(repairs),
        complete=reconciler.complete,
    )


def _by_kind(keys: Iterable[Key]) -> dict[str, int]:
    """The kind of an item comes first in its key."""
    counted = Counter(map(itemgetter(0), keys))
    return {kind.__name__: times for kind, times in counted.items() if isinstance(kind, type)}


async def _peers(parts: Parts, directory: Path) -> tuple[PeerPart, ...]:
    passed = await traffic.of_peers(parts.network, directory)
    network, failing, ignored = parts.network, parts.reconciler.failing, parts.network.ignored
    leases = [lease for lease in network.table.leases.values() if lease.subnet != network.view.own]
    found: list[PeerPart] = []
    for start in range(0, len(leases), PORTION):
        await asyncio.sleep(0)
        portion = leases[start : start + PORTION]
        sights = parts.sights([lease.subnet for lease in portion])
        for lease in portion:
            stands = _state(network, lease.subnet, failing, ignored)
            found.append(_peer(parts, lease, stands, sights.get(lease.subnet), passed.get(lease.subnet)))
    return tuple(found)


def _state(
    network: Network, subnet: Subnet, failing: Mapping[Key, str], ignored: Mapping[Subnet, str]
) -> tuple[str, str] | None:
    """What is wrong with a peer on our side, and why; None if nothing is."""
    items = network.items_of(subnet)
    if not items:
        return State.IGNORED, ignored.get(subnet, "")
    if failing:
        for item in items:
            if (reason := failing.get(item.key)) is not None:
                return State.FAILED, reason
    return None


def _peer(
    parts: Parts, lease: Lease, stands: tuple[str, str] | None, sight: Sight | None, passed: Traffic | None
) -> PeerPart:
    attrs, subnet = lease.attrs, lease.subnet
    seen = sight or _UNSEEN
    state, reason = stands or (str(seen.reach), seen.reason)
    sent, got, sent_packets, got_packets = _counts(passed)
    return PeerPart(
        subnet=_text(subnet.ipv4),
        ipv6_subnet=_text(subnet.ipv6),
        public_ip=_text(attrs.public_ip),
        public_ipv6=_text(attrs.public_ipv6),
        backend=attrs.backend_type or parts.network.view.config.backend_type,
        state=state,
        reason=reason,
        rtt=seen.rtt,
        loss=seen.loss,
        mtu=seen.mtu,
        heard=seen.heard,
        changed=parts.roster.changed.get(subnet),
        tx_bytes=sent,
        rx_bytes=got,
        tx_packets=sent_packets,
        rx_packets=got_packets,
        drops={} if passed is None else dict(passed.drops),
    )


def _counts(passed: Traffic | None) -> tuple[int | None, int | None, int | None, int | None]:
    if passed is None:
        return None, None, None, None
    return passed.tx_bytes, passed.rx_bytes, passed.tx_packets, passed.rx_packets


def _condition(there: Condition) -> ConditionPart:
    kind = there.kind
    return ConditionPart(
        *(kind.code, kind.severity.name.lower(), there.subject, there.text, kind.means, kind.remedy, there.since)
    )


def _text(value: IPAddress | IPNetwork | None) -> str | None:
    return None if value is None else str(value)


_UNSEEN: Final = Sight()
