"""The systemd units that put the agent in front of Docker, and what Docker's own configuration has to say about it.

Rules of this file
  1. Text in, text out: who reads and writes files, and who asks a program for its version, is ``docker.py``.
  2. What differs from one Docker to the next is a row of ``DIRECT_ACCESS``, not an ``if``.
  3. ``contrib/systemd`` holds what these functions give for their defaults, letter for letter; a golden test says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from pyflannel.outputs import SUBNET_FILE

Version: TypeAlias = tuple[int, int, int]

MARKER: Final = (
    "# This file belongs to flannelctl, which may replace it; put changes of your own into a drop-in beside it."
)
"""First line of every file we write, and how we know it again."""

DOCKERD: Final = "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"
"""How Docker's own packages start it, for hosts where no docker.service is to be found."""

_FLANNELD_SERVICE: Final = """\
{marker}
# How this host takes part in the network is said in /etc/default/flanneld, an option of flanneld a line:
#   FLANNELD_ETCD_ENDPOINTS=http://172.16.41.130:2379
#   FLANNELD_ETCD_PREFIX=/docker/network
#   FLANNELD_IFACE=ens33
# flanneld elsewhere than below: "systemctl edit flanneld", and there an empty "ExecStart=" before the new one.
[Unit]
Description=flannel overlay network agent
Wants=network-online.target
After=network-online.target etcd.service
Before=docker.service
# A network agent never gives up.
StartLimitIntervalSec=0

[Service]
# Ready means: subnet.env is written and the way to every known host is in the kernel.
Type=notify
# The agent waits for its store as long as it takes, and Docker waits for the agent.
TimeoutStartSec=infinity
{environment}EnvironmentFile=-/etc/default/flanneld
ExecStart={flanneld}
Restart=on-failure
RestartSec=2
# The udp backend's forwarder outlives the agent, as the kernel's devices and routes do: no packet waits for a restart.
KillMode=process
LimitNOFILE=65536

# subnet.env outlives the agent: Docker reads it again whenever it starts.
RuntimeDirectory=flannel
RuntimeDirectoryPreserve=yes
StateDirectory=flannel
StateDirectoryMode=0700

# Left out on purpose: ProtectKernelTunables (it sets /proc/sys/net), ProtectKernelModules (iptables loads modules),
# PrivateDevices and ProtectClock (both take /dev/net/tun away), ProtectSystem=strict (-subnet-file may be anywhere).
# CAP_DAC_OVERRIDE is there for a TLS key that belongs to another user.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_MODULE CAP_DAC_OVERRIDE
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
ProtectControlGroups=yes
ProtectKernelLogs=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""

_DOCKER_DROP_IN: Final = """\
{marker}
[Unit]
# Wants, not Requires: with Requires, stopping or restarting flanneld would stop Docker and with it every container.
Wants=flanneld.service
After=flanneld.service
# Without subnet.env Docker cannot start; it tries until flanneld has written it, not just three times.
StartLimitIntervalSec=0

[Service]
RestartSec=5
EnvironmentFile={subnet_file}
{environment}ExecStart=
ExecStart={exec_start}
"""


@dataclass(frozen=True, slots=True)
class DirectAccess:
    """What lets packets from other hosts reach containers, from one version of Docker on."""

    since: Version
    settings: tuple[str, ...] = ()
    """Switches of dockerd to turn on."""
    environment: tuple[str, ...] = ()
    """``NAME=value`` for dockerd."""
    note: str = ""
    """For the person who configures it."""


DIRECT_ACCESS: Final = (
    DirectAccess(
        (28, 2, 0),
        settings=("allow-direct-routing",),
        note="Docker 28 drops packets from other hosts to containers; --allow-direct-routing lets the overlay in",
    ),
    DirectAccess(
        (28, 0, 2),
        environment=("DOCKER_INSECURE_NO_IPTABLES_RAW=1",),
        note="Docker 28 drops packets from other hosts to published ports of containers; before 28.2 only "
        "DOCKER_INSECURE_NO_IPTABLES_RAW=1 lets the overlay in",
    ),
    DirectAccess(
        (28, 0, 0),
        note="Docker 28.0.0 and 28.0.1 drop packets from other hosts to published ports of containers and cannot be "
        "told not to: upgrade Docker",
    ),
    DirectAccess((0, 0, 0)),
)
"""Newest first; the first row that is not newer than the Docker at hand applies.

Since 28.0 Docker puts ``-d CONTAINER ! -i docker0 -j DROP`` into raw PREROUTING, ahead of anything a filter rule could
allow (moby #49325, #49792; per published port at first, per container later).  The variable is of 28.0.2 (#49621), the
daemon option of 28.2.0 (#49832).  The label com.docker.network.bridge.trusted_host_interfaces, also of 28.2.0, is for
networks a person creates; the default bridge takes none.
"""


def direct_access(version: Version) -> DirectAccess:
    """The row of ``DIRECT_ACCESS`` for a Docker of this version."""
    return next(row for row in DIRECT_ACCESS if row.since <= version)


def docker_version(text: str) -> Version | None:
    """The version in what ``dockerd --version`` prints, or in a bare ``28.2``; None if there is none."""
    if (match := re.search(r"(?<![\d.])(\d+)\.(\d+)(?:\.(\d+))?", text)) is None:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)


def flanneld_service(flanneld: str = "/usr/local/bin/flanneld", subnet_file: str = SUBNET_FILE) -> str:
    """``flanneld.service`` for the program at ``flanneld``.  Which store and which interface is left to its options."""
    environment = "" if subnet_file == SUBNET_FILE else f"Environment=FLANNELD_SUBNET_FILE={subnet_file}\n"
    return _FLANNELD_SERVICE.format(marker=MARKER, environment=environment, flanneld=flanneld)


def docker_drop_in(
    exec_start: str = DOCKERD,
    switches: Mapping[str, bool] | None = None,
    environment: Iterable[str] = (),
    subnet_file: str = SUBNET_FILE,
) -> str:
    """The drop-in that has Docker wait for the agent and take bridge address and MTU from subnet.env.

    ``exec_start`` is how Docker was started so far.  Everything on it stays except what we decide now: ``--bip``,
    ``--mtu``, and ``switches``, the options of dockerd to turn on or off.
    """
    switches = switches or {}
    command = re.sub(r"\s--(?:bip|mtu)(?:=|\s+)\S+", "", exec_start)
    for name in switches:
        command = re.sub(rf"\s--{name}(?:=\S+)?(?=\s|$)", "", command)
    words = [command, "--bip=${FLANNEL_SUBNET}", "--mtu=${FLANNEL_MTU}"]
    words += [f"--{name}" if on else f"--{name}=false" for name, on in switches.items()]
    return _DOCKER_DROP_IN.format(
        marker=MARKER,
        subnet_file=subnet_file,
        environment="".join(f"Environment={assignment}\n" for assignment in environment),
        exec_start=" ".join(words),
    )


def exec_start(fragments: Iterable[str]) -> str | None:
    """The ``ExecStart`` that holds when systemd has read ``fragments``, a unit and its drop-ins, in this order."""
    command = None
    for text in fragments:
        section = ""
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            if match := re.fullmatch(r"\s*\[(\w+)\]\s*", line):
                section = match[1]
            elif section == "Service" and (match := re.fullmatch(r"\s*ExecStart\s*=\s*(.*?)\s*", line)):
                command = match[1] or None
    return command


def conflicts(daemon_json: Mapping[str, object], switches: Iterable[str] = ()) -> tuple[str, ...]:
    """The keys of Docker's daemon.json with which it would not start beside our drop-in.

    dockerd refuses what is given both there and on its command line, and ``bip`` beside ``bridge``.
    """
    return tuple(key for key in ("bip", "bridge", "mtu", *switches) if key in daemon_json)
