"""The MAC addresses peers know our devices by, kept so that a device made anew needs nobody to learn anything.

The order of preference is the order of what peers most probably have in their tables: the address in our lease if it
was ever ours, else the one the device has now, else the one it had when we last ran, else a new one.  So a device that
was given another address while no agent ran gets the published one back, and one that Go flanneld made and published
is taken as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyflannel.backends import FIXED_NAMES
from pyflannel.lease.model import Lease, Subnet
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.outputs import write_atomic
from pyflannel.state import Address, IPNetwork, Link, Mac, Scope, State

log = logging.getLogger(__name__)

FILE: Final = "vtep-macs.json"


@dataclass(frozen=True, slots=True)
class Devices:
    """Our devices as a start finds them."""

    names: tuple[str, ...]
    """Those a backend wants."""
    held: State
    """Of these the ones there are, whosever they are."""
    remembered: Mapping[str, Mac]
    """The address each device had when we last ran."""
    former: frozenset[str]
    """Devices we had under another name, before the VNI was changed, and that nobody made anew since; and those of
    another backend that have an address of the network."""

    def macs(
        self, published: Mapping[str, Mac], others: Iterable[Lease], random_bytes: Callable[[int], bytes]
    ) -> dict[str, Mac]:
        """A MAC for each device: ``published`` in our lease, held, remembered or new.

        What is published but was never seen here is that of another host, which has the same address as we: only with
        a MAC of our own is that found out.  Nor is what one of ``others``, the leases of other hosts, publishes for
        us: this machine, or its disk, is a copy of that host.
        """
        macs: dict[str, Mac] = {}
        wanted: dict[str, Mac | None] = {}
        for dev in self.names:
            held, remembered = _held(self.held, dev), self.remembered.get(dev)
            if dev in published and published[dev] in (held, remembered):
                macs[dev] = published[dev]
            else:
                wanted[dev] = held or remembered
        spoken = _spoken(filter(None, wanted.values()), others)
        for dev, mac in wanted.items():
            if mac in spoken:
                log.warning(
                    "The MAC address %s of %s is that of another host, %s; making another", mac, dev, spoken[mac]
                )
                mac = None
            macs[dev] = mac or new_mac(random_bytes)
        return macs


def find_devices(
    kernel: LinuxKernel, state_dir: Path, network: str, names: Iterable[str], ranges: Iterable[IPNetwork] = ()
) -> Devices:
    """Look at the devices called ``names``, and at those remembered for ``network``; ``KernelError`` if we may not.

    ``ranges`` are the networks' own: a device of another backend is a former one of ours if it has an address in them.
    """
    wanted = tuple(names)
    remembered = remembered_macs(state_dir, network)
    seen = kernel.devices({*wanted, *remembered})
    former = frozenset(dev for dev, mac in remembered.items() if dev not in wanted and _is_still(seen, dev, mac))
    others = kernel.observe(Scope(devices=FIXED_NAMES.difference(wanted), networks=tuple(ranges)))
    former |= {item.dev for item in others.values() if isinstance(item, Address) and item.address.version == 4}
    return Devices(wanted, State(item for (_, name), item in seen.items() if name in wanted), remembered, former)


def _spoken(macs: Iterable[Mac], leases: Iterable[Lease]) -> dict[Mac, Subnet]:
    """Which of ``macs`` are published in which lease, however the backend writes it down."""
    texts = {str(mac): mac for mac in macs}
    found: dict[Mac, Subnet] = {}
    for lease in leases if texts else ():
        said = f"{lease.attrs.backend_data}{lease.attrs.backend_v6_data}".lower()
        found |= {mac: lease.subnet for text, mac in texts.items() if text in said}
    return found


def _is_still(observed: State, dev: str, mac: Mac) -> bool:
    """Whether there is a device that may be the one remembered: some types have no MAC address to be told by."""
    link = observed.get((Link, dev))
    return isinstance(link, Link) and link.mac in (None, mac)


def _held(observed: State, dev: str) -> Mac | None:
    link = observed.get((Link, dev))
    return link.mac if isinstance(link, Link) and link.mac is not None and link.mac.is_unicast else None


def new_mac(random_bytes: Callable[[int], bytes]) -> Mac:
    """A random unicast address marked as locally administered (IEEE 802: bits 1 and 0 of the first byte)."""
    first, *rest = random_bytes(6)
    return Mac(bytes([(first & 0xFE) | 0x02, *rest]))


def remembered_macs(state_dir: Path, network: str) -> dict[str, Mac]:
    """What ``remember`` wrote for ``network``; empty, with a warning where there is something unreadable."""
    try:
        macs = {dev: Mac.parse(text) for dev, text in _read(state_dir).get(network, {}).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as exc:
        path = state_dir / FILE
        log.warning("Ignoring %s, which should map networks to device names to MAC addresses: %s", path, exc)
        return {}
    return {dev: mac for dev, mac in macs.items() if mac.is_unicast}


def remember(state_dir: Path, network: str, macs: Mapping[str, Mac]) -> None:
    """Keep ``macs``, and no others, for the next start in ``network``.

    ``network`` is the prefix of its keys: several agents may share a directory.  A failure is logged, and does not
    hinder anything now.
    """
    if remembered_macs(state_dir, network) == macs:
        return
    try:
        write_atomic(state_dir / FILE, record(state_dir, network, {dev: str(mac) for dev, mac in macs.items()}))
    except OSError as exc:
        path = state_dir / FILE
        log.warning("Could not write %s, so a device made anew may have another MAC address: %s", path, exc)


def record(state_dir: Path, network: str, macs: Mapping[str, str]) -> str:
    """The text of the file once it holds these addresses, by device, for ``network``."""
    try:
        kept = _read(state_dir)
    except (OSError, ValueError, AttributeError, TypeError):
        kept = {}
    return json.dumps(kept | {network: dict(macs)}, sort_keys=True) + "\n"


def _read(state_dir: Path) -> dict[str, dict[str, str]]:
    networks = json.loads((state_dir / FILE).read_text())
    return {str(network): {str(dev): str(mac) for dev, mac in macs.items()} for network, macs in networks.items()}
