"""What is written in files of this host: by the agent, and by those who manage its devices.

Everything is looked for below a root, so that a test, or somebody with a disk of another host, can say where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pyflannel.doctor.facts import Manager, SubnetFile
from pyflannel.outputs import parse_env, read_subnet_env

UNIT: Final = "flanneld.service"
UNIT_PLACES: Final = tuple(f"{top}/systemd/system" for top in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
NETWORK_PLACES: Final = tuple(f"{top}/systemd/network" for top in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
"""Where systemd looks; of files with one name the first counts (systemd.network(5))."""
CNI: Final = "etc/cni/net.d"
NETWORKD_STATE: Final = "run/systemd/netif/state"
"""There while systemd-networkd is at work."""
KEEPERS: Final = frozenset(("persistent", "random"))
"""Values of MACAddressPolicy by which udev gives a device another address (systemd.link(5))."""
_LINE: Final = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*")
Sections = dict[str, dict[str, str]]


def subnet_file(path: Path) -> SubnetFile:
    """What ``path`` says, whoever wrote it."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return SubnetFile(str(path), there=False)
    except OSError:
        return SubnetFile(str(path))
    said, variables = read_subnet_env(text), parse_env(text)
    mtu = variables.get("FLANNEL_MTU", "")
    return SubnetFile(
        str(path),
        True,
        said.ipv4_network,
        said.ipv4_subnet,
        said.ipv6_network,
        said.ipv6_subnet,
        int(mtu) if re.fullmatch("[0-9]{2,6}", mtu, re.ASCII) else None,
        {"true": True, "false": False}.get(variables.get("FLANNEL_IPMASQ", "")),
    )


def unit(root: Path) -> str | None:
    """The unit that starts an agent here."""
    return next((str(path) for place in UNIT_PLACES if (path := root / place / UNIT).is_file()), None)


def uses_cni(root: Path) -> bool:
    """Whether a CNI configuration here names flannel's plug-in."""
    for path in (root / CNI).glob("*.conf*"):
        with suppress(OSError):
            if '"flannel"' in path.read_text(errors="replace"):
                return True
    return False


def newest(paths: Iterable[Path]) -> float | None:
    """When the youngest of these files was written, in Unix time."""
    times: list[float] = []
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times, default=None)


def mac_policy(root: Path, device: str) -> str | None:
    """The .link file by which udev gives a new ``device`` another MAC address; None if it leaves that alone."""
    for path, sections in _read(root, "link"):
        match = sections.get("Match", {})
        if not match or match.keys() - {"OriginalName"} or not _matches(match["OriginalName"], device):
            continue
        return str(path) if sections.get("Link", {}).get("MACAddressPolicy") in KEEPERS else None
    return None


def networkd(root: Path, devices: Iterable[str]) -> tuple[Manager, ...]:
    """Which of ``devices`` systemd-networkd takes for its own, if it is at work."""
    if not (root / NETWORKD_STATE).exists():
        return ()
    files = list(_read(root, "network"))
    return tuple(found for device in devices if (found := _network(files, device)) is not None)


def _network(files: list[tuple[Path, Sections]], device: str) -> Manager | None:
    for path, sections in files:
        match = sections.get("Match", {})
        if "Name" not in match or not _matches(match["Name"], device):
            continue
        if match.keys() - {"Name"}:
            # It may apply, or not: what it asks besides is not known here.
            return None
        if sections.get("Link", {}).get("Unmanaged", "no").lower() in ("yes", "true", "on", "1"):
            return None
        return Manager("systemd-networkd", device, f"{path}: [Match] Name={match['Name']}")
    return None


def _read(root: Path, kind: str) -> Iterator[tuple[Path, Sections]]:
    """The files that count, in the order in which the first that matches wins; an empty one stands for none."""
    found: dict[str, Path] = {}
    for place in NETWORK_PLACES:
        with suppress(OSError):
            for path in (root / place).glob(f"*.{kind}"):
                found.setdefault(path.name, path)
    for _, path in sorted(found.items()):
        with suppress(OSError):
            if sections := _sections(path.read_text(errors="replace")):
                yield path, sections


def _sections(text: str) -> Sections:
    sections: Sections = {}
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
        elif not stripped.startswith(("#", ";")) and (match := _LINE.fullmatch(line)) is not None:
            sections.setdefault(section, {})[match[1]] = match[2]
    return sections


def _matches(patterns: str, name: str) -> bool:
    """Globs, one of which must fit; with a ``!`` in front of the first, none may (systemd.link(5))."""
    negated = patterns.startswith("!")
    fits = any(fnmatchcase(name, pattern) for pattern in patterns.removeprefix("!").split())
    return fits is not negated
