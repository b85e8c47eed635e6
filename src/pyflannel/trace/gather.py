"""What this host would do with a packet, asked from its kernel and its tools.

Rules of this file
  1. Nothing is changed.  The kernel is made to ask who answers for an address, as it does for any packet, and that is
     all.
  2. It works in the network namespace of the thread that calls, and blocks: for a second at most where nobody answers,
     and as long as ``iptables-save`` takes.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyflannel.firewall.nft import NftTable, foreign, read
from pyflannel.firewall.verdict import Ruleset, parse
from pyflannel.forwarding import Forwarders
from pyflannel.linux import wguapi, wireguard
from pyflannel.linux.errors import KernelError
from pyflannel.linux.lookup import Decision, Kind, look_up
from pyflannel.linux.netlink import Conversation, open_socket
from pyflannel.linux.surroundings import NOBODY, Answer, Device, answer, devices, forwarding_entry, noted
from pyflannel.state import Forwarding, IPAddress, Ipip, Scope, Vxlan, Wireguard
from pyflannel.trace.facts import Crossing, Flow, Outer, Overlay, Tables, Underway
from pyflannel.wireguard import WireguardPeer

TOOL_LIMIT_S: Final = 10.0
_COUNTERS: Final = re.compile(r"\[\d+:\d+\]|# Completed on.*")


class CannotLook(Exception):
    """The kernel of this host does not say what it would do; the message has what it was asked."""


def depart(overlay: Overlay, flow: Flow, run_dir: Path | None = None) -> Crossing:
    """What this host does with a packet that begins its way here; ``CannotLook`` if that is not to be found out.

    ``run_dir`` is where forwarders are reached, for the udp backend.
    """
    with _looking(run_dir) as look:
        home = look.up(flow.source)
        entry = look.devices.get(home.index) if home.kind is not Kind.LOCAL else None
        # Where it would leave by a device of the network, or through a gateway, the sender is not here.
        here = entry is not None and home.gateway is None and not _is_overlay(overlay, entry)
        return look.crossing(overlay, flow, entry if here else None)


def arrive(overlay: Overlay, flow: Flow, outer: Outer, run_dir: Path | None = None) -> Crossing:
    """What this host does with a packet that comes to it as ``outer`` says; ``CannotLook`` as with ``depart``."""
    with _looking(run_dir) as look:
        tunnel = overlay.tunnel(flow.source.version) if outer.tunnel else None
        carrier = look.device(overlay.underlay)
        entry = carrier if tunnel is None else look.device(tunnel.name)
        return look.crossing(overlay, flow, entry, outer, carrier)


@contextlib.contextmanager
def _looking(run_dir: Path | None) -> Iterator[_Look]:
    try:
        with contextlib.closing(Conversation(open_socket())) as conversation:
            yield _Look(conversation, run_dir)
    except KernelError as error:
        raise CannotLook(str(error)) from error
    except OSError as error:
        raise CannotLook(f"asking the kernel: {error.strerror or error}") from error


def _is_overlay(overlay: Overlay, device: Device) -> bool:
    return any(tunnel is not None and tunnel.name == device.name for tunnel in (overlay.tunnel(4), overlay.tunnel(6)))


@dataclass(frozen=True, slots=True)
class _Beyond:
    """What a tunnel does with the packet, and the host it sends it to."""

    target: IPAddress | None = None
    behind: IPAddress | None = None
    wireguard: tuple[WireguardPeer, ...] | None = None
    forwards: IPAddress | None = None
    forwarder: bool = False


class _Look:
    """One look at this host."""

    def __init__(self, conversation: Conversation, run_dir: Path | None) -> None:
        self._conversation, self._run_dir = conversation, run_dir
        self.devices: Mapping[int, Device] = {device.index: device for device in devices(conversation)}

    def device(self, name: str) -> Device | None:
        return next((device for device in self.devices.values() if device.name == name), None)

    def up(self, target: IPAddress, source: IPAddress | None = None, came_in: int = 0) -> Decision:
        return look_up(self._conversation, target, source, came_in)

    def crossing(
        self,
        overlay: Overlay,
        flow: Flow,
        entry: Device | None,
        outer: Outer | None = None,
        carrier: Device | None = None,
    ) -> Crossing:
        index = 0 if entry is None else entry.index
        routed, back = self.up(flow.destination), self.up(flow.source)
        asks = entry.up if entry is not None else outer is None and back.kind is Kind.LOCAL
        # What leaves by the bridge it came in by is carried by that, and never routed.
        bridged = outer is None and (routed.kind, routed.index, routed.gateway) == (Kind.UNICAST, index, None)
        decision = self.up(flow.destination, flow.source, index) if asks and not bridged else routed
        leaves = self.devices.get(decision.index) if decision.kind is Kind.UNICAST else None
        hop = self._answer(leaves, decision.gateway or flow.destination)
        beyond = _Beyond() if leaves is None else self._beyond(leaves, decision, hop, flow.destination)
        version = flow.source.version
        outside = (outer.source if outer is not None else beyond.target or flow.source).version
        return Crossing(
            devices=self.devices,
            decision=decision,
            routed=routed,
            back=back,
            entry=entry,
            origin=self._answer(entry, flow.source) if outer is None else NOBODY,
            hop=hop,
            behind=beyond.behind,
            wireguard=beyond.wireguard if outer is None else self._wireguard(entry),
            forwards=beyond.forwards,
            forwarder=beyond.forwarder,
            underway=None if beyond.target is None or leaves is None else self._underway(beyond.target, leaves),
            outer_in=None if outer is None or carrier is None or not outer.tunnel else self._coming(outer, carrier),
            outer_entry=carrier,
            barrier="" if entry is None else _barrier(version, entry.name),
            filtered=_filtered(version),
            tables=tables(version),
            outer_tables=None if outside == version else tables(outside),
        )

    def _beyond(self, leaves: Device, decision: Decision, hop: Answer, destination: IPAddress) -> _Beyond:
        if isinstance(leaves.spec, Vxlan):
            found = None if hop.mac is None else forwarding_entry(self._conversation, leaves.index, hop.mac)
            return _Beyond(found, behind=found)
        if isinstance(leaves.spec, Ipip):
            return _Beyond(decision.gateway)
        if isinstance(leaves.spec, Wireguard):
            peers = self._wireguard(leaves)
            return _Beyond(_endpoint(peers, destination), wireguard=peers)
        if leaves.kind == "tun":
            served, host = self._forwarder(leaves.name, destination)
            return _Beyond(host, forwards=host, forwarder=served)
        return _Beyond()

    def _answer(self, device: Device | None, address: IPAddress) -> Answer:
        if device is None or not device.asks:
            return NOBODY
        if not device.up:
            return noted(self._conversation, device.index, address)
        return answer(self._conversation, device.index, address)

    def _underway(self, target: IPAddress, tunnel: Device) -> Underway:
        # The device a tunnel was made over does not matter here: for an entry that names none, the routes decide.
        source = tunnel.spec.local if isinstance(tunnel.spec, Vxlan | Ipip) else None
        decision = self.up(target, source)
        leaves = self.devices.get(decision.index) if decision.kind is Kind.UNICAST else None
        return Underway(target, decision, self._answer(leaves, decision.gateway or target))

    def _coming(self, outer: Outer, carrier: Device) -> Decision:
        return self.up(outer.destination, outer.source, carrier.index)

    def _wireguard(self, device: Device | None) -> tuple[WireguardPeer, ...] | None:
        if device is None or not isinstance(device.spec, Wireguard):
            return None
        try:
            if device.kind == "tun":
                held = tuple(wguapi.observe(device.name))
            else:
                held = tuple(wireguard.observe(device.name, device.index, None, {}, wireguard.Memory()))
        except KernelError:
            return None
        return tuple(item for item in held if isinstance(item, WireguardPeer))

    def _forwarder(self, dev: str, destination: IPAddress) -> tuple[bool, IPAddress | None]:
        """Whether a forwarder answers, and where it sends the packet."""
        if self._run_dir is None:
            return False, None
        forwarders = Forwarders(self._run_dir)
        try:
            held = list(forwarders.observe(Scope(devices=frozenset((dev,)))))
        finally:
            forwarders.close()
        routes = (item for item in held if isinstance(item, Forwarding) and destination in item.subnet)
        return bool(held), next((item.host for item in routes), None)


def _endpoint(peers: Sequence[WireguardPeer] | None, destination: IPAddress) -> IPAddress | None:
    for peer in peers or ():
        if any(net.version == destination.version and destination in net for net in peer.allowed):
            return None if peer.endpoint is None else peer.endpoint.host
    return None


def _barrier(version: int, dev: str) -> str:
    """As the kernel decides: for IPv4 the device a packet comes in by counts, for IPv6 the host."""
    if version == 6:
        return "net.ipv6.conf.all.forwarding" if _is_off("ipv6/conf/all/forwarding") else ""
    if not _is_off(f"ipv4/conf/{dev}/forwarding"):
        return ""
    # Written, the one for all devices changes that of each; but only if it is not so already.
    return "net.ipv4.ip_forward" if _is_off("ipv4/ip_forward") else f"net.ipv4.conf.{dev.replace('.', '/')}.forwarding"


def _is_off(setting: str) -> bool:
    try:
        return Path("/proc/sys/net", setting).read_text().strip() == "0"
    except OSError:
        return False


def _filtered(version: int) -> bool:
    """Whether iptables sees what only crosses a bridge (br_netfilter)."""
    path = Path("/proc/sys/net/bridge", f"bridge-nf-call-{'iptables' if version == 4 else 'ip6tables'}")
    try:
        return path.read_text().strip() != "0"
    except OSError:
        # Without that module there is no such file.
        return False


def tables(version: int) -> Tables:
    """The firewall of this host for IPv4 or IPv6."""
    prefix = "iptables" if version == 4 else "ip6tables"
    plain = _said([f"{prefix}-save"])
    # Plain iptables is one of the two others.  The legacy one is asked only where it is in use: asking loads modules.
    others = [f"{prefix}-nft-save", *([f"{prefix}-legacy-save"] if _legacy_in_use(version) else [])]
    texts = [plain, *(_said([name]) for name in others)]
    trouble = "" if plain is not None else f"{prefix}-save cannot be run"
    return Tables(_rulesets([text for text in texts if text is not None]), _native(), trouble)


def _rulesets(texts: Sequence[str]) -> tuple[Ruleset, ...]:
    """Each different set of rules once."""
    seen: dict[str, Ruleset] = {}
    for text in texts:
        bare = "\n".join(_COUNTERS.sub("", line) for line in text.splitlines() if not line.startswith("# Gen"))
        if bare not in seen:
            seen[bare] = parse(text)
    return tuple(seen.values())


def _legacy_in_use(version: int) -> bool:
    path = Path(f"/proc/thread-self/net/{'ip' if version == 4 else 'ip6'}_tables_names")
    try:
        return bool(path.read_text().split())
    except OSError:
        return False


def _native() -> tuple[NftTable, ...]:
    """The tables that others keep with nftables itself."""
    found: list[NftTable] = []
    listed = (_said(["nft", "list", "tables"]) or "").splitlines()
    for name in foreign(line.removeprefix("table ") for line in listed):
        # A table may be gone by now.
        with contextlib.suppress(ValueError):
            found.append(read(_said(["nft", "-j", "list", "table", *name.split()]) or ""))
    return tuple(found)


def _said(argv: Sequence[str]) -> str | None:
    """What a program printed; None if it is not there, fails, or does not end."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TOOL_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
