"""The forwarders on this host: found, started, told where packets go, and replaced without losing one (``tunnel``).

Rules of this file
  1. A forwarder outlives us, as the kernel's objects do.  One that serves its device is adopted; what it does is read
     from it, and what is put or cut is what differs.
  2. One takes over from another by their descriptors: the new process is ready and knows all routes before the old one
     stops reading, and what arrives in between waits in the queues of the kernel.
  3. The TUN device stays when its forwarder dies.  Who starts the next one finds address and routes in place.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import groupby
from pathlib import Path

from pyflannel.diff import Op, Put, device
from pyflannel.linux.kernel import KernelError, Report
from pyflannel.linux.listeners import listener
from pyflannel.linux.netns import Netns, inside
from pyflannel.state import Forwarder, Forwarding, Item, Scope
from pyflannel.tunnel.control import PATIENCE_S, ControlError, Remote, Silent, launch
from pyflannel.tunnel.device import Tun, open_socket
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.messages import ROUTES_PER_MESSAGE, VERSION, Status
from pyflannel.tunnel.peers import Endpoint

log = logging.getLogger(__name__)

END_PATIENCE_MS = 2000
"""For a process that was killed to be gone: until then it has its device."""
_UNKNOWN = Status(VERSION, 0, "", "", "", -1, 0)


@dataclass(slots=True)
class _Service:
    """A forwarder we speak with, and what it said when it was last asked."""

    remote: Remote
    status: Status = _UNKNOWN
    held: dict[IPv4Network, Forwarding] = field(default_factory=dict)

    def item(self) -> Forwarder | None:
        """None if it serves no device, or none any more."""
        status = self.status
        host, _, port = status.address.rpartition(":")
        subnet = next((one for one in status.own.subnets if isinstance(one, IPv4Network)), None)
        if not status.device or not host or subnet is None:
            return None
        release = status.release if status.version == VERSION else f"with protocol {status.version}"
        return Forwarder(status.device, IPv4Address(host), int(port), subnet, release)


class Forwarders:
    """The ``Holder`` of ``Forwarder`` and ``Forwarding``: a process for each TUN device, reached in ``directory``."""

    def __init__(self, directory: Path, netns: Netns = None, patience_s: float = PATIENCE_S) -> None:
        """Nothing is asked, started or changed yet; devices and sockets are those of ``netns``."""
        self._directory, self._netns, self._patience_s = directory, netns, patience_s
        self._services: dict[str, _Service] = {}
        self._last: dict[str, Mapping[IPv4Network, Forwarding]] = {}
        """What those knew that we let go of."""
        self._children: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lapsed: Callable[[], None] = lambda: None

    @property
    def kinds(self) -> frozenset[type[Item]]:
        """Forwarders and what they do."""
        return frozenset((Forwarder, Forwarding))

    def watch(self, loop: asyncio.AbstractEventLoop, lapsed: Callable[[], None]) -> None:
        """Have ``lapsed`` called, until ``close``, whenever a forwarder that we know ends by itself."""
        self._loop, self._lapsed = loop, lapsed

    def close(self) -> None:
        """Let go of all of them; they go on.  Closing twice is fine."""
        for dev in list(self._services):
            self._forget(dev)
        self._reap()

    def observe(self, scope: Scope) -> Iterator[Item]:
        """The forwarders behind devices in ``scope``, and their routes; one that does not answer is none."""
        self._reap()
        for dev in sorted(scope.devices):
            service = self._find(dev)
            if service is not None and (item := service.item()) is not None:
                yield item
                yield from service.held.values()

    def apply(self, ops: Sequence[Op]) -> Report:
        """As ``Kernel.apply`` promises.  Starting a forwarder takes as long as the interpreter does, some 0.2 s."""
        done: list[Op] = []
        failed: list[tuple[Op, KernelError]] = []
        for portion in _portions(ops):
            try:
                self._carry_out(portion)
            except (ControlError, OSError) as error:
                what = f"forwarding through {device(portion[0].item)}"
                code, text = (error.errno, error.strerror) if isinstance(error, OSError) else (None, str(error))
                failed += [(op, KernelError(what, code or errno.EIO, text or "")) for op in portion]
            else:
                done += portion
        return Report(tuple(done), tuple(failed))

    def _carry_out(self, portion: Sequence[Op]) -> None:
        first = portion[0]
        if isinstance(first.item, Forwarding):
            self._change(first.item.dev, portion)
        elif isinstance(first, Put) and isinstance(first.item, Forwarder):
            self._serve(first.item)
        else:
            self._stop(device(first.item))

    def _change(self, dev: str, portion: Sequence[Op]) -> None:
        add = {op.item.subnet: op.item for op in portion if isinstance(op, Put) and isinstance(op.item, Forwarding)}
        cut = [op.item.subnet for op in portion if not isinstance(op, Put) and isinstance(op.item, Forwarding)]
        service = self._services.get(dev) or self._find(dev)
        if service is None:
            if add:
                raise ControlError("no forwarder runs")
            return
        before = service.status.generation
        routes = [(item.subnet, Endpoint(item.host, item.port)) for item in add.values()]
        try:
            service.remote.change_routes(before, before + 1, routes, cut)
        except ControlError:
            self._forget(dev)
            raise
        service.status = replace(service.status, generation=before + 1)
        for subnet in cut:
            service.held.pop(subnet, None)
        service.held.update(add)

    def _serve(self, item: Forwarder) -> None:
        """Have a forwarder like ``item`` behind its device, in place of the one there is."""
        self._directory.mkdir(parents=True, exist_ok=True)
        dev, old = item.dev, self._find(item.dev)
        if old is not None and old.item() == item:
            return
        held = dict(self._last.get(dev, {}) if old is None else old.held)
        with ExitStack() as descriptors:
            fds: list[int] = []
            if old is None:
                fds.append(inside(self._netns, lambda: Tun.open(dev)).fd)
                descriptors.callback(os.close, fds[0])
            if old is None or old.status.address != f"{item.listen}:{item.port}":
                sock = inside(self._netns, lambda: open_socket(str(item.listen), item.port))
                fds.append(descriptors.enter_context(sock).fileno())
            remote = self._prepare(item, 1 if old is None else old.status.generation + 1, held)
            try:
                if old is not None:
                    given = old.remote.hand_over()
                    for fd in given:
                        descriptors.callback(os.close, fd)
                    fds = [given[0], *(fds or given[1:])]
                remote.start(*fds)
                self._beside(dev).replace(self._path(dev))
            except BaseException:
                # Then it ends by itself, for it serves nothing.
                remote.close()
                raise
        remote.be_patient(self._patience_s)
        self._forget(dev)
        self._last.pop(dev, None)
        self._services[dev] = service = _Service(remote, remote.hello(), held)
        self._listen(dev, service)

    def _prepare(self, item: Forwarder, generation: int, held: Mapping[IPv4Network, Forwarding]) -> Remote:
        """A forwarder that knows all but its descriptors."""
        remote, pid = launch(self._beside(item.dev))
        self._children.add(pid)
        try:
            remote.set_own(Own((item.subnet,), item.subnet.network_address))
            remote.set_routes(generation, [(one.subnet, Endpoint(one.host, one.port)) for one in held.values()])
        except BaseException:
            remote.close()
            raise
        return remote

    def _stop(self, dev: str) -> None:
        service = self._find(dev)
        if service is not None:
            service.remote.stop()
            self._forget(dev)
        self._last.pop(dev, None)
        self._path(dev).unlink(missing_ok=True)

    def _find(self, dev: str) -> _Service | None:
        """The forwarder behind a device, as it is now."""
        service = self._services.get(dev)
        try:
            if service is None:
                remote = Remote.connect(self._path(dev), self._patience_s)
                if remote is None:
                    return None
                self._services[dev] = service = _Service(remote)
                self._listen(dev, service)
            self._look(dev, service)
        except ControlError as error:
            log.warning("The forwarder of %s is of no use: %s", dev, error)
            if isinstance(error, Silent):
                self._end(dev)
            self._forget(dev)
            return None
        if service.status.device != dev:
            self._forget(dev)
            return None
        return service

    def _look(self, dev: str, service: _Service) -> None:
        status = service.remote.hello()
        if status.device == dev and (status.pid, status.generation) != (service.status.pid, service.status.generation):
            _, routes = service.remote.routes()
            service.held = {
                network: Forwarding(dev, network, endpoint.address, endpoint.port)
                for network, endpoint in routes
                if isinstance(network, IPv4Network)
            }
        service.status = status

    def _end(self, dev: str) -> None:
        """Have done with one that hangs, whoever started it: until it is gone nobody else can have the device."""
        # One that was prepared is bound where it was reached then.  Whoever else is there serves nothing.
        for path in sockets(self._directory, dev):
            while (process := listener(path)) is not None:
                log.error("Killing the forwarder of %s, which does not answer", dev)
                try:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                    ending = select.poll()
                    ending.register(process, select.POLLIN)
                    if not ending.poll(END_PATIENCE_MS):
                        return
                finally:
                    os.close(process)
        self._reap()

    def _forget(self, dev: str) -> None:
        service = self._services.pop(dev, None)
        if service is None:
            return
        self._last[dev] = service.held
        if self._loop is not None:
            self._loop.remove_reader(service.remote.fileno())
        service.remote.close()

    def _listen(self, dev: str, service: _Service) -> None:
        if self._loop is not None:
            self._loop.add_reader(service.remote.fileno(), self._lapse, dev)

    def _lapse(self, dev: str) -> None:
        """It has ended, for while nothing is asked there is nothing to be read."""
        self._forget(dev)
        self._reap()
        self._lapsed()

    def _reap(self) -> None:
        for pid in list(self._children):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(pid)

    def _path(self, dev: str) -> Path:
        return sockets(self._directory, dev)[0]

    def _beside(self, dev: str) -> Path:
        return sockets(self._directory, dev)[1]


def sockets(directory: Path, dev: str) -> tuple[Path, Path]:
    """Where the forwarder of a device is reached, and where one that does not serve yet."""
    return directory / f"{dev}.sock", directory / f"{dev}.next"


def _portions(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """``ops`` in their order, as many of them together as can be done or fail together."""
    for (_, kind, _), group in groupby(ops, key=lambda op: (device(op.item), type(op.item), type(op))):
        run = list(group)
        most = ROUTES_PER_MESSAGE if kind is Forwarding else 1
        for start in range(0, len(run), most):
            yield run[start : start + most]
