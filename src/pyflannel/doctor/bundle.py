"""A support bundle: what people who help would ask for first, in one archive, with the secrets taken out.

Rules of this file
  1. Every text goes through ``redact`` on its way in, whatever it is and wherever it is from; there is one door.
  2. Nothing is included that is nothing but a secret: no key file, no kubeconfig, no certificate's key.
  3. A program that is missing or fails leaves a text that says so.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import tarfile
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pyflannel.doctor import procfs
from pyflannel.doctor.redaction import redact
from pyflannel.linux.run import CommandFailed, run
from pyflannel.settings import Settings, secrets

LIMIT: Final = 10.0
"""Seconds for one program."""
LARGEST: Final = 4 * 1024 * 1024
"""Characters of one text; of a longer one the end is left out, and of a journal there is never that much."""
JOURNAL_LINES: Final = 3000
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "system/uname.txt": ("uname", "-a"),
    "system/timedatectl.txt": ("timedatectl", "status", "--no-pager"),
    "system/udp-sockets.txt": ("ss", "-l", "-u", "-n", "-p"),
    "system/modules.txt": ("lsmod",),
    "system/flanneld-unit.txt": ("systemctl", "cat", "--no-pager", "flanneld.service"),
    "system/docker-unit.txt": ("systemctl", "cat", "--no-pager", "docker.service"),
    "network/link.txt": ("ip", "-d", "-s", "link", "show"),
    "network/address.txt": ("ip", "address", "show"),
    "network/route-ipv4.txt": ("ip", "-4", "route", "show", "table", "all"),
    "network/route-ipv6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "network/rule.txt": ("ip", "rule", "show"),
    "network/rule-ipv6.txt": ("ip", "-6", "rule", "show"),
    "network/neighbour.txt": ("ip", "-s", "neighbour", "show"),
    "network/fdb.txt": ("bridge", "-s", "fdb", "show"),
    "network/bridge-link.txt": ("bridge", "-d", "link", "show"),
    "network/wireguard.txt": ("wg", "show", "all"),
    "firewall/iptables.txt": ("iptables-save", "-c"),
    "firewall/ip6tables.txt": ("ip6tables-save", "-c"),
    "firewall/nft.txt": ("nft", "list", "ruleset"),
    "docker/version.txt": ("docker", "version"),
    "docker/network.txt": ("docker", "network", "inspect", "bridge"),
    "log/flanneld.txt": (
        "journalctl",
        "--no-pager",
        "--lines",
        str(JOURNAL_LINES),
        "-o",
        "short-iso",
        "-u",
        "flanneld",
    ),
    "log/kernel.txt": ("journalctl", "--no-pager", "--lines", "500", "-o", "short-iso", "-k"),
}
LEGACY: Final = {
    4: ("firewall/iptables-legacy.txt", "iptables-legacy-save"),
    6: ("firewall/ip6tables-legacy.txt", "ip6tables-legacy-save"),
}
"""Asked only where that variant is in use: the tool would bring it in."""
_SHARED: Final = re.compile(r'(?i)"PSK"\s*:\s*"([^"]+)"')
"""What a network configuration holds that only its hosts should know (compat §5.5)."""
SYSCTLS: Final = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/neigh/default/gc_thresh3",
    "fs/file-nr",
)


async def output() -> dict[str, str]:
    """What all the programs print, by the name of the text."""
    asked: dict[str, Sequence[str]] = dict(COMMANDS)
    asked |= {name: (program, "-c") for family, (name, program) in LEGACY.items() if procfs.legacy_tables(family)}
    answers = await asyncio.gather(*map(_ask, asked.values()))
    settings = "".join(f"{name} = {value}\n" for name, value in procfs.sysctls(SYSCTLS).items())
    return {**dict(zip(asked, answers, strict=True)), "system/sysctl.txt": settings}


def written(paths: Mapping[str, Path]) -> dict[str, str]:
    """What stands in files, by the name of the text."""
    return {name: _read(path) for name, path in paths.items()}


def hidden(settings: Settings, configurations: Iterable[str], keys: Iterable[Path]) -> frozenset[str]:
    """What must be in no text: passwords, what a network's hosts share, and what key files hold."""
    known = set(secrets(settings)) | {key for text in configurations for key in _SHARED.findall(text)}
    if settings.etcd_username:
        known.add(b64encode(f"{settings.etcd_username}:{settings.etcd_password}".encode()).decode())
    known |= {line.strip() for path in keys if path.is_file() for line in _read(path).splitlines()}
    return frozenset(known)


def pack(path: Path, title: str, texts: Mapping[str, str], known: Iterable[str], now: float) -> None:
    """Write the archive, for its owner alone; ``OSError`` if it cannot be, or is there already."""
    secret = frozenset(known)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in sorted(texts.items()):
                data = redact(_cut(text), secret).encode(errors="replace")
                member = tarfile.TarInfo(f"{title}/{name}")
                member.size, member.mtime, member.mode = len(data), int(now), 0o600
                archive.addfile(member, io.BytesIO(data))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _cut(text: str) -> str:
    return text if len(text) <= LARGEST else f"{text[:LARGEST]}\n... and {len(text) - LARGEST} more characters\n"


async def _ask(argv: Sequence[str]) -> str:
    head = f"$ {shlex.join(argv)}\n"
    try:
        done = await run(argv, timeout=LIMIT)
    except CommandFailed as error:
        return f"{head}{error}\n"
    status = f"exit status {done.status}\n" if done.status else ""
    return f"{head}{done.out}{done.err}{status}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"
