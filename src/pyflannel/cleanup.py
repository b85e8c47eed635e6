"""Taking everything of ours off this host, and nothing else.

What is ours
  * vxlan devices called ``flannel.<VNI>`` or ``flannel-v6.<VNI>``, of the configured network or of one remembered in
    the state directory, with all that is on them, and those of them that somebody renamed.  A device under such a name
    which is no vxlan device is somebody's and stays.  Likewise, where the network is configured for them, the devices
    of other backends (``backends.FIXED_NAMES``).
  * our chains in the firewall, in both address families, and every rule that leads to them, and the tables of
    ``-peer-filter``;
  * subnet.env and the files in the state directory, sockets, and what a write that was cut short left beside them.

Not among it: our lease, which other hosts go by, and which runs out by itself; what Docker was told; directories.

The files go last, and only once the devices are gone: they are how the next clean-up would know which to look for.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pyflannel import identity, keyfile, peerfilter
from pyflannel.backends import FIXED_NAMES, udp
from pyflannel.diff import Cut
from pyflannel.firewall.iptables import Fault, parse_save, removal
from pyflannel.forwarding import sockets
from pyflannel.hooks import record
from pyflannel.identity import remembered_macs
from pyflannel.linux.facts import gather
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.nft import Nft
from pyflannel.linux.xtables import FirewallError, Xtables
from pyflannel.settings import Settings
from pyflannel.state import Identity, Link, Mac, Misfit, Route, Scope, State, Vxlan
from pyflannel.store import cache
from pyflannel.telemetry.address import control_socket

FAMILIES: Final[tuple[Literal[4, 6], ...]] = (4, 6)
_NAME: Final = re.compile(r"flannel(?:-v6)?\.(0|[1-9][0-9]{0,7})")
_TUNNELS: Final = ("ipip", "tun", "vxlan", "wireguard")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What there is of ours on this host."""

    objects: tuple[Link | Misfit | Route, ...] = ()
    """Devices, and routes on devices that are somebody else's."""
    firewall: tuple[tuple[Literal[4, 6], tuple[Fault, ...]], ...] = ()
    """By address family; those that have nothing of ours are not there."""
    tables: tuple[str, ...] = ()
    """Of nftables, of the family ``inet``."""
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()
    """What stays although it might be taken for ours, and what could not be looked at because nothing is there."""

    @property
    def any(self) -> bool:
        """Whether there is something to remove."""
        return bool(self.objects or self.firewall or self.tables or self.files)


async def find(settings: Settings, configured: Iterable[str] = ()) -> Leftovers:
    """Look for what is ours; ``configured`` are the devices of the network as it is configured now.

    ``KernelError`` or ``FirewallError`` if it cannot be looked for.
    """
    remembered = remembered_macs(Path(settings.state_dir), settings.etcd_prefix)
    names = {*remembered, *configured}
    with LinuxKernel() as kernel:
        carriers = (interface.name for interface in gather().interfaces)
        objects, spared = sort_out(kernel.observe(scope(names, remembered, carriers)))
    firewall: list[tuple[Literal[4, 6], tuple[Fault, ...]]] = []
    absent: list[str] = []
    for family in FAMILIES:
        if shutil.which(program := _saver(family)) is None:
            # Nor could an agent have made rules here.
            absent.append(f"IPv{family} firewall: not looked at, for there is no {program}")
        elif faults := removal(parse_save(await Xtables(family).observe())):
            firewall.append((family, faults))
    tables = await peerfilter.left(Nft())
    return Leftovers(objects, tuple(firewall), tables, tuple(files(settings)), (*spared, *absent))


def scope(names: Collection[str], remembered: Mapping[str, Mac], carriers: Iterable[str] = ()) -> Scope:
    """Where to look for devices called ``names``, for those that no longer are, and for routes on ``carriers``."""
    found = {name: match for name in names if (match := _NAME.fullmatch(name)) is not None}
    devices = found.keys() | FIXED_NAMES.intersection(names)
    return Scope(
        devices=frozenset(devices),
        borrowed=frozenset(carriers) - devices,
        identities=tuple(
            Identity(name, Vxlan(int(match[1]), "", None, 0), remembered[name])
            for name, match in found.items()
            if name in remembered
        ),
    )


def sort_out(held: State) -> tuple[tuple[Link | Misfit | Route, ...], tuple[str, ...]]:
    """The devices and routes to remove, and a remark on each device that has a name of ours and stays.

    What is on a device of ours goes with it.
    """
    ours: list[Link | Misfit | Route] = []
    spared: list[str] = []
    for item in held.values():
        if isinstance(item, Misfit) and item.kind not in _TUNNELS:
            spared.append(f"{item.name} stays: {item.why}")
        elif isinstance(item, Link | Misfit) or (isinstance(item, Route) and (Link, item.dev) not in held):
            ours.append(item)
    return tuple(ours), tuple(spared)


def files(settings: Settings) -> Iterator[Path]:
    """Those of our files that are there."""
    state, run = Path(settings.state_dir), Path(settings.subnet_file).parent
    for path in (
        Path(settings.subnet_file),
        control_socket(settings.subnet_file),
        *sockets(run, udp.DEV),
        state / identity.FILE,
        state / keyfile.NAME,
        cache.path(state, settings.etcd_prefix),
        record.path(run, settings.etcd_prefix),
    ):
        if path.is_file() or path.is_symlink() or path.is_socket():
            yield path
        if path.parent.is_dir():
            # How ``write_atomic`` calls a file it has not finished.
            cut_short = re.compile(rf"\.{re.escape(path.name)}[0-9]+")
            yield from sorted(other for other in path.parent.iterdir() if cut_short.fullmatch(other.name))


async def remove(found: Leftovers) -> tuple[str, ...]:
    """Remove ``found``; returns what could not be removed, one clause each.  What is gone already is no failure."""
    failures: list[str] = []
    for family, _ in found.firewall:
        try:
            await Xtables(family).remove()
        except FirewallError as error:
            failures.append(str(error))
    try:
        await peerfilter.remove(Nft(), found.tables)
    except FirewallError as error:
        failures.append(str(error))
    with LinuxKernel() as kernel:
        report = kernel.apply([Cut(item) for item in found.objects])
    failures += (str(error) for _, error in report.failed)
    if not report.failed:
        failures += filter(None, map(_unlink, found.files))
    return tuple(failures)


def _saver(family: Literal[4, 6]) -> str:
    return "iptables-save" if family == 4 else "ip6tables-save"


def _unlink(path: Path) -> str | None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"removing {path}: {error.strerror}"
    return None
