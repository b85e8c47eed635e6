"""Handing subnet.env to whoever starts containers, and telling systemd once it is there."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from pyflannel.conditions import SUBNET_FILE
from pyflannel.health import Health
from pyflannel.linux.systemd import notify
from pyflannel.network import Network
from pyflannel.outputs import SubnetEnv, parse_env, render_subnet_env, write_atomic
from pyflannel.settings import Settings

log = logging.getLogger(__name__)

FOR_CONTAINERS: Final = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET", "FLANNEL_MTU")
"""What of the file Docker has to be started with."""
RETRY: Final = 2.0
"""Seconds between attempts to write the file."""


class Publisher:
    """Keeps one subnet file at what the network needs."""

    def __init__(self, path: Path, env: SubnetEnv, health: Health | None = None) -> None:
        """Nothing is written yet."""
        self.ready = False
        """The file has been written."""
        self._health = health or Health()
        self._path, self._env = path, env
        self._changed = asyncio.Event()
        self._changed.set()

    def update(self, env: SubnetEnv) -> None:
        """Publish ``env`` from now on, if it differs."""
        if env != self._env:
            self._env = env
            self._changed.set()

    async def run(self) -> None:
        """Write the file, however long it takes, and again when it changes: without it no container may start."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write()
            if not self.ready:
                self.ready = True
                notify("READY=1")
                log.info("Running backend.")

    async def _write(self) -> None:
        while True:
            text = render_subnet_env(self._env)
            try:
                differences = self._differences(text)
                write_atomic(self._path, text)
            except OSError as exc:
                reason = exc.strerror or str(exc)
                self._health.set(
                    SUBNET_FILE, f"could not write the subnet file {self._path}, and go on trying: {reason}"
                )
                await asyncio.sleep(RETRY)
            else:
                self._health.clear(SUBNET_FILE)
                log.info("Wrote subnet file to %s", self._path)
                if differences:
                    # Running containers and their engine have to be told by people.
                    said = ", ".join(differences)
                    log.error("%s: restart Docker, or its containers go on with what was", said)
                return

    def _differences(self, text: str) -> list[str]:
        """What containers started by the file as it is go by, and should no longer once it says ``text``."""
        try:
            old, new = parse_env(self._path.read_text(errors="replace")), parse_env(text)
        except FileNotFoundError:
            return []
        names = [name for name in FOR_CONTAINERS if name in old and old[name] != new.get(name)]
        return [f"{name} was {old[name]} and is {new.get(name, 'no more')}" for name in names]


def subnet_env(settings: Settings, network: Network) -> SubnetEnv:
    """What those who start containers are told of the network."""
    config, own = network.view.config, network.view.own
    return SubnetEnv(
        ipv4_network=config.ipv4.network if config.ipv4 is not None else None,
        ipv4_subnet=own.ipv4,
        ipv6_network=config.ipv6.network if config.ipv6 is not None else None,
        ipv6_subnet=own.ipv6,
        mtu=network.backend.mtu(network.view.underlay),
        ip_masq=settings.ip_masq,
    )
