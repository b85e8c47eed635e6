"""Handing subnet.env to whoever starts containers, and telling systemd once it is there."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from pyflannel.linux.systemd import notify
from pyflannel.outputs import SubnetEnv, render_subnet_env, write_atomic

log = logging.getLogger(__name__)

RETRY: Final = 2.0
"""Seconds between attempts to write the file."""


class Publisher:
    """Keeps one subnet file at what the network needs."""

    def __init__(self, path: Path, env: SubnetEnv) -> None:
        """Nothing is written yet."""
        self._path, self._env = path, env
        self._changed = asyncio.Event()
        self._changed.set()

    def update(self, env: SubnetEnv) -> None:
        """Publish ``env`` from now on, if it differs; running containers and their engine have to be told by people."""
        if env == self._env:
            return
        if env.mtu != self._env.mtu:
            log.warning(
                "The MTU of the network is %d now and was %d: restart Docker, or its containers go on with the old one",
                env.mtu,
                self._env.mtu,
            )
        self._env = env
        self._changed.set()

    async def run(self) -> None:
        """Write the file, however long it takes, and again when it changes: without it no container may start."""
        ready = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write()
            if not ready:
                ready = True
                notify("READY=1")
                log.info("Running backend.")

    async def _write(self) -> None:
        said = ""
        while True:
            try:
                write_atomic(self._path, render_subnet_env(self._env))
            except OSError as exc:
                if (reason := exc.strerror or str(exc)) != said:
                    log.error("could not write the subnet file %s, and go on trying: %s", self._path, reason)
                said = reason
                await asyncio.sleep(RETRY)
            else:
                log.info("Wrote subnet file to %s", self._path)
                return
