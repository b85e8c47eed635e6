"""What other programs of this host say, each asked for a few seconds at most."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pyflannel.doctor import procfs
from pyflannel.doctor.facts import Docker, Manager, Tables
from pyflannel.firewall.nft import NftTable, foreign, read
from pyflannel.linux.run import CommandFailed, Completed, run
from pyflannel.store.http1 import BadAnswer, Client, unix

LIMIT: Final = 4.0
"""Seconds for one program."""
DOCKER_SOCKET: Final = Path("/run/docker.sock")
TUN: Final = Path("/dev/net/tun")
_MANAGED: Final = frozenset(("connected", "connecting", "disconnected", "deactivating"))
"""States in which NetworkManager considers a device its own; ``connected (externally)`` is none of them."""
Run: TypeAlias = Callable[[Sequence[str]], Awaitable[Completed | None]]
"""Runs a program; None if it is missing, or does not end."""


async def attempt(argv: Sequence[str]) -> Completed | None:
    """Run a program to its end."""
    try:
        return await run(argv, timeout=LIMIT)
    except CommandFailed:
        return None


async def output(execute: Run, *argv: str) -> str | None:
    """What a program printed, if it did well."""
    done = await execute(argv)
    return done.out if done is not None and done.status == 0 else None


async def tables(execute: Run = attempt, proc: Path = procfs.PROC) -> tuple[Tables, ...] | None:
    """What both variants of iptables hold; None if the usual one cannot be read."""
    version = await output(execute, "iptables", "--version")
    if version is None:
        return None
    usual_is_legacy = "nf_tables" not in version
    found: list[Tables] = []
    families: tuple[Literal[4, 6], ...] = (4, 6)
    for family in families:
        program = "iptables" if family == 4 else "ip6tables"
        # Either tool would bring its variant in where it is not in use.
        legacy = procfs.legacy_tables(family, proc)
        if usual_is_legacy or legacy:
            text = await output(execute, f"{program if usual_is_legacy else f'{program}-legacy'}-save")
            if text is not None:
                found.append(Tables(program if usual_is_legacy else f"{program}-legacy", family, text, usual_is_legacy))
        if not usual_is_legacy or Path("/sys/module/nf_tables").exists():
            text = await output(execute, f"{f'{program}-nft' if usual_is_legacy else program}-save")
            if text is not None:
                name = f"{program}-nft" if usual_is_legacy else program
                found.append(Tables(name, family, text, not usual_is_legacy))
    return tuple(found) if any(each.usual for each in found) else None


async def nft_tables(execute: Run = attempt) -> tuple[str, ...] | None:
    """The tables of nftables, such as ``ip filter``."""
    text = await output(execute, "nft", "list", "tables")
    if text is None:
        return None
    return tuple(line.removeprefix("table ") for line in text.splitlines() if line.startswith("table "))


async def native(names: Iterable[str], execute: Run = attempt) -> tuple[NftTable, ...]:
    """Those of the tables ``names`` which other programs keep, and iptables does not show."""
    found: list[NftTable] = []
    for name in foreign(names):
        # A table may be gone by now, or be one of another sort of packets.
        with suppress(ValueError):
            found.append(read(await output(execute, "nft", "-j", "list", "table", *name.split()) or ""))
    return tuple(found)


async def network_manager(devices: Iterable[str], execute: Run = attempt) -> tuple[Manager, ...]:
    """Which of ``devices`` NetworkManager takes for its own; none where it is not at work."""
    text = await output(execute, "nmcli", "-t", "-f", "DEVICE,STATE", "device")
    wanted = set(devices)
    states = dict(line.rpartition(":")[::2] for line in (text or "").splitlines())
    return tuple(
        Manager("NetworkManager", device, f"nmcli device says: {device} {state}")
        for device, state in states.items()
        if device in wanted and state.partition(" (")[0] in _MANAGED and "external" not in state
    )


async def lacks(backend: str | None, execute: Run = attempt, tun: Path = TUN) -> str | None:
    """What the kernel says when it is asked for the kind of device that ``backend`` needs; None if it makes one.

    It is asked for in a network namespace that is gone at once.
    """
    if backend == "udp" and not tun.exists():
        return f"there is no {tun}"
    words = {
        "vxlan": ("probe0", "type", "vxlan", "id", "1", "dstport", "8472"),
        "ipip": ("probe0", "type", "ipip", "remote", "192.0.2.1"),
        "wireguard": ("probe0", "type", "wireguard"),
    }.get(backend or "")
    if words is None:
        return None
    done = await execute(("unshare", "--net", "ip", "link", "add", *words))
    if done is None or done.status == 0:
        return None
    said = done.err.strip().replace("\n", " ")
    if backend == "wireguard" and await execute(("wireguard-go", "--version")) is not None:
        # The agent takes that program instead.
        return None
    # Anything else (no rights, no unshare) says nothing about the kernel.
    if "not supported" not in said and "Unknown device type" not in said:
        return None
    return f"ip link add {' '.join(words)}: {said}"


async def docker(path: Path = DOCKER_SOCKET) -> Docker | None:
    """Docker, as its daemon tells of itself and its default network; None if none answers."""
    client = Client(unix(str(path)), "docker", connect_s=1.0, answer_s=3.0, body_limit=1 << 20)
    try:
        version = _object((await client.request("GET", "/version")).body)
        network = _object((await client.request("GET", "/networks/bridge")).body)
    except (OSError, BadAnswer):
        return None
    finally:
        await client.close()
    options, number = _under(network, "Options"), version.get("Version")
    bridge, mtu = (options.get(f"com.docker.network.{name}") for name in ("bridge.name", "driver.mtu"))
    return Docker(
        number if isinstance(number, str) else None,
        bridge if isinstance(bridge, str) else None,
        _subnet(_under(network, "IPAM")),
        int(mtu) if isinstance(mtu, str) and mtu.isdecimal() else None,
    )


def _subnet(ipam: dict[str, object]) -> IPv4Network | None:
    configs = ipam.get("Config")
    for each in configs if isinstance(configs, list) else ():
        text = each.get("Subnet") if isinstance(each, dict) else None
        try:
            return IPv4Network(str(text))
        except ValueError:
            continue
    return None


def _object(body: bytes) -> dict[str, object]:
    try:
        found: object = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _under(document: dict[str, object], key: str) -> dict[str, object]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}
