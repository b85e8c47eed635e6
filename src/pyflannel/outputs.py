"""What the agent hands to others: subnet.env, and the options Docker is started with (compat §4).

Rules of this file
  1. Rendering is pure and exact to the byte; other programs source, grep and compare these files.
  2. Reading is lenient: the file may be years old, written by another flannel or by hand.  What cannot be understood is
     passed over, never an error.
  3. One function touches the disk, and whoever looks at the path sees the old text or the new one, never a part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from pyflannel.lease.model import Subnet

SUBNET_FILE: Final = "/run/flannel/subnet.env"
"""Where subnet.env is looked for unless somebody says otherwise."""
DOCKER_FILE: Final = "/run/docker_opts.env"
"""Where mk-docker-opts.sh writes unless told otherwise."""


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """What subnet.env says.  A family is either there, with its network and our subnet, or it is not."""

    ipv4_network: IPv4Network | None
    ipv4_subnet: IPv4Network | None
    ipv6_network: IPv6Network | None
    ipv6_subnet: IPv6Network | None
    mtu: int
    """Of the overlay: what containers must use, in bytes."""
    ip_masq: bool
    """Whether the agent masquerades, so that Docker must not."""

    def __post_init__(self) -> None:
        """Refuse half a family."""
        if (self.ipv4_network is None) != (self.ipv4_subnet is None):
            raise ValueError(f"IPv4 needs both network and subnet: {self.ipv4_network} and {self.ipv4_subnet}")
        if (self.ipv6_network is None) != (self.ipv6_subnet is None):
            raise ValueError(f"IPv6 needs both network and subnet: {self.ipv6_network} and {self.ipv6_subnet}")


@dataclass(frozen=True, slots=True)
class Previous:
    """What an earlier run left in subnet.env, in network form; None for what is absent or ambiguous."""

    ipv4_network: IPv4Network | None = None
    ipv4_subnet: IPv4Network | None = None
    ipv6_network: IPv6Network | None = None
    ipv6_subnet: IPv6Network | None = None

    @property
    def subnet(self) -> Subnet | None:
        """The lease we would like to have again."""
        if self.ipv4_subnet is None and self.ipv6_subnet is None:
            return None
        return Subnet(self.ipv4_subnet, self.ipv6_subnet)


def render_subnet_env(env: SubnetEnv) -> str:
    """The text of subnet.env, byte for byte as flannel writes it (compat §4.1); a subnet shows as its first address."""
    lines = []
    if env.ipv4_subnet is not None:
        lines += [f"FLANNEL_NETWORK={env.ipv4_network}", f"FLANNEL_SUBNET={_first_address(env.ipv4_subnet)}"]
    if env.ipv6_subnet is not None:
        lines += [f"FLANNEL_IPV6_NETWORK={env.ipv6_network}", f"FLANNEL_IPV6_SUBNET={_first_address(env.ipv6_subnet)}"]
    lines += [f"FLANNEL_MTU={env.mtu}", f"FLANNEL_IPMASQ={str(env.ip_masq).lower()}"]
    return "".join(f"{line}\n" for line in lines)


def _first_address(subnet: IPv4Network | IPv6Network) -> str:
    return f"{subnet.network_address + 1}/{subnet.prefixlen}"


_ASSIGNMENT = re.compile(
    r"""\s* (?:export\s+)? (?P<name>[A-Za-z_][A-Za-z0-9_]*) \s*=\s*
        (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>.*?) )
        \s* (?:(?<=\s)\#.*|(?<=['"])\#.*)? """,
    re.VERBOSE,
)


def parse_env(text: str) -> dict[str, str]:
    """The assignments in ``text``, a file as ``sh`` and systemd read it; the last of a name wins.

    Comments, quotes and ``export`` are understood (compat §4.2).  Nothing is expanded or run, and a line that is no
    assignment is passed over.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if (match := _ASSIGNMENT.fullmatch(line)) is None:
            continue
        if (value := match["double"]) is not None:
            value = re.sub(r'\\(["\\$`])', r"\1", value)
        found[match["name"]] = value if value is not None else match["single"] or match["bare"] or ""
    return found


def read_subnet_env(text: str) -> Previous:
    """What ``text``, an earlier subnet.env, says about network and subnet.  Never fails.

    A value may be a list with commas.  Members that are no CIDR of the right family are skipped, and a list of which
    none or more than one remains says nothing (compat §4.2).
    """
    env = parse_env(text)
    return Previous(
        _only_ipv4(env.get("FLANNEL_NETWORK", "")),
        _only_ipv4(env.get("FLANNEL_SUBNET", "")),
        _only_ipv6(env.get("FLANNEL_IPV6_NETWORK", "")),
        _only_ipv6(env.get("FLANNEL_IPV6_SUBNET", "")),
    )


def _only_ipv4(text: str) -> IPv4Network | None:
    nets = [net for net in _cidrs(text) if isinstance(net, IPv4Network)]
    return nets[0] if len(nets) == 1 else None


def _only_ipv6(text: str) -> IPv6Network | None:
    nets = [net for net in _cidrs(text) if isinstance(net, IPv6Network)]
    return nets[0] if len(nets) == 1 else None


def _cidrs(text: str) -> list[IPv4Network | IPv6Network]:
    nets = []
    for member in text.split(","):
        # ip_network also takes a bare address and a netmask, which are no CIDR and which Go refuses.
        if re.search(r"/[0-9]+$", member.strip()) is None:
            continue
        try:
            nets.append(ip_network(member.strip(), strict=False))
        except ValueError:
            continue
    return nets


def docker_options(
    variables: Mapping[str, str],
    *,
    individual: bool = True,
    combined: bool = True,
    ip_masq: bool = True,
    key: str = "DOCKER_OPTS",
) -> str:
    """The file mk-docker-opts.sh writes, byte for byte (compat §4.3).

    ``variables`` is the environment with subnet.env's assignments on top.  Every variable with ``DOCKER_OPT_`` in its
    name is taken along, in order of names, and the value ``key`` already has comes first in the combined one.
    ``ValueError`` if FLANNEL_IPMASQ is set but neither ``true`` nor ``false``.
    """
    options = {name: value for name, value in variables.items() if "DOCKER_OPT_" in name}
    if subnet := variables.get("FLANNEL_SUBNET"):
        options["DOCKER_OPT_BIP"] = f"--bip={subnet}"
    if mtu := variables.get("FLANNEL_MTU"):
        options["DOCKER_OPT_MTU"] = f"--mtu={mtu}"
    if ip_masq and (masquerades := variables.get("FLANNEL_IPMASQ")):
        if masquerades not in ("true", "false"):
            raise ValueError(f"Invalid value of FLANNEL_IPMASQ: {masquerades}")
        options["DOCKER_OPT_IPMASQ"] = f"--ip-masq={'false' if masquerades == 'true' else 'true'}"

    lines = [f'{name}="{options[name]}"\n' for name in sorted(options)] if individual else []
    if combined:
        given = variables.get(key, "")
        value = (f"{given} " if given else "") + "".join(f" {options[name]}" for name in sorted(options))
        lines.append(f'{key}="{value}"\n')
    return "".join(lines)


def route_through(subnet: str, routes: str) -> str | None:
    """The line of ``routes``, the output of ``ip route show``, that sends our own ``subnet`` to some other host.

    ``subnet`` is as in FLANNEL_SUBNET.  None if there is no such route, or if it is no IPv4 subnet.  Such a route is
    more than untidy: packets for our containers would leave the host.
    """
    try:
        network = str(IPv4Interface(subnet).network)
    except ValueError:
        return None
    for line in routes.splitlines():
        words = line.split()
        if words[:1] == [network] and "via" in words:
            return line.strip()
    return None


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Make ``text`` the content of ``path``, at once and for good: it survives a crash right after.

    Missing directories are made with 0755.  A new file gets ``mode`` whatever the umask is, an existing one keeps its
    own.  ``OSError`` if it cannot be done; then nothing is left beside ``path``, and it is whole, old or new.
    """
    for directory in (*reversed(path.parent.parents), path.parent):
        directory.mkdir(0o755, exist_ok=True)
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode & 0o7777
    temporary = path.with_name(f".{path.name}{int.from_bytes(os.urandom(6))}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
