"""What this machine can do, asked once, answered with a reason.

CI names in PYFLANNEL_TEST_PROMISE (comma separated) what it is sure to offer; a test that would be skipped for want of
one of those fails instead, so that a lane cannot go quiet unnoticed.

An emulated machine names in PYFLANNEL_TEST_SLOWNESS how many times slower than others it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path

SLOWNESS = float(os.environ.get("PYFLANNEL_TEST_SLOWNESS") or 1)
"""Whatever is waited for may take this many times longer than elsewhere."""


@cache
def promised() -> frozenset[str]:
    """The capabilities this run may not skip for."""
    return frozenset(filter(None, os.environ.get("PYFLANNEL_TEST_PROMISE", "").split(",")))


@cache
def missing(capability: str) -> str | None:
    """Why ``capability`` is not to be had here, or None if it is."""
    return _PROBES[capability]()


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _program(*names: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        absent = [name for name in names if shutil.which(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    return probe


def _in_namespace(script: str) -> Callable[[], str | None]:
    """Whether ``script`` succeeds in a throw-away network namespace."""

    def probe() -> str | None:
        done = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else (*done.stderr.splitlines(), f"exit status {done.returncode}")[0]

    return probe


def _compiler() -> str | None:
    """For extensions of Python: its headers are there as well."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    return _program("cc")() or (None if header.exists() else f"there is no {header}")


def _user_namespace() -> str | None:
    done = subprocess.run(
        ["unshare", "-Urnm", "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else (done.stderr.strip() or f"exit status {done.returncode}")


def _wireguard_go() -> str | None:
    if (absent := _program("wireguard-go")()) or (absent := missing("tun")):
        return absent
    return "the kernel has wireguard, which is used instead" if missing("wireguard") is None else None


_FLOWTABLE = """
    ip link add name probe0 type veth peer name probe1
    nft 'add table ip probe; add flowtable ip probe fast { hook ingress priority 0; devices = { probe0, probe1 }; }'
"""

_PROBES: dict[str, Callable[[], str | None]] = {
    "root": _root,
    "netns": _in_namespace("ip link set lo up"),
    "bridge": _in_namespace("ip link add name probe0 type bridge"),
    "veth": _in_namespace("ip link add name probe0 type veth peer name probe1"),
    "vxlan": _in_namespace("ip link add name probe0 type vxlan id 1 dstport 8472"),
    "tun": _in_namespace("ip tuntap add dev probe0 mode tun"),
    # Since Linux 6.2 and 6.7.
    "live-rename": _in_namespace("ip link add name probe0 up type bridge; ip link set probe0 name probe1"),
    "fdb-flush": _in_namespace("ip link add name probe0 type vxlan id 1 dstport 8472; bridge fdb flush dev probe0"),
    "ipip": _in_namespace("ip link add name probe0 type ipip remote 192.0.2.1"),
    "wireguard": _in_namespace("ip link add name probe0 type wireguard"),
    "wireguard-go": _wireguard_go,
    "wg": _program("wg"),
    "dummy": _in_namespace("ip link add name probe0 type dummy"),
    "netem": _in_namespace("tc qdisc add dev lo root netem delay 1ms"),
    "flowtable": _in_namespace(_FLOWTABLE),
    "iptables": _in_namespace("iptables-save >/dev/null && iptables -w -N PYFLANNEL-PROBE"),
    "ip6tables": _in_namespace("ip6tables-save >/dev/null && ip6tables -w -N PYFLANNEL-PROBE"),
    "iptables-nft": _in_namespace("iptables-nft -w -N PYFLANNEL-PROBE"),
    "iptables-legacy": _in_namespace("iptables-legacy -w -N PYFLANNEL-PROBE"),
    "ip6tables-nft": _in_namespace("ip6tables-nft -w -N PYFLANNEL-PROBE"),
    "ip6tables-legacy": _in_namespace("ip6tables-legacy -w -N PYFLANNEL-PROBE"),
    "userns": _user_namespace,
    "etcd": _program("etcd", "etcdctl"),
    "openssl": _program("openssl"),
    "docker": _program("dockerd", "docker", "containerd"),
    "busybox": _program("busybox"),
    "chromium": _program("chromium"),
    "compiler": _compiler,
    "iperf3": _program("iperf3"),
    "nft": _in_namespace("nft add table inet pyflannel-probe"),
    "promtool": _program("promtool"),
    "systemd": _program("systemd-analyze"),
}
