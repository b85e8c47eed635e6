"""The MAC addresses peers know our devices by, kept so that a device made anew needs nobody to learn anything.

The order of preference is the order of what peers most probably have in their tables: the address in our lease, else
the one the device has now, else the one it had when we last ran, else a new one.  So a device that was given another
address while no agent ran gets the published one back, and one that Go flanneld made and published is taken as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from pyflannel.outputs import write_atomic
from pyflannel.state import Link, Mac, Scope, State

log = logging.getLogger(__name__)

FILE: Final = "vtep-macs.json"


def choose_macs(
    devices: Iterable[str],
    published: Mapping[str, Mac],
    observed: State,
    remembered: Mapping[str, Mac],
    random_bytes: Callable[[int], bytes],
) -> dict[str, Mac]:
    """A MAC for each device: published, observed, remembered or new."""
    return {
        dev: published.get(dev) or _held(observed, dev) or remembered.get(dev) or new_mac(random_bytes)
        for dev in devices
    }


def _held(observed: State, dev: str) -> Mac | None:
    link = observed.get((Link, dev))
    return link.mac if isinstance(link, Link) and link.mac is not None and link.mac.is_unicast else None


def new_mac(random_bytes: Callable[[int], bytes]) -> Mac:
    """A random unicast address marked as locally administered (IEEE 802: bits 1 and 0 of the first byte)."""
    first, *rest = random_bytes(6)
    return Mac(bytes([(first & 0xFE) | 0x02, *rest]))


def own_devices(devices: Iterable[str]) -> Scope:
    """The scope in which to look for devices that are already there."""
    return Scope(devices=frozenset(devices))


def former_devices(observed: State, remembered: Mapping[str, Mac], devices: Iterable[str]) -> frozenset[str]:
    """Devices we had under another name, before the VNI was changed, and that nobody made anew since."""
    return frozenset(dev for dev, mac in remembered.items() if dev not in set(devices) and _held(observed, dev) == mac)


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
