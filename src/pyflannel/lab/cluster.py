"""Building a lab, looking at it, taking it down.

The order is that of real hosts: network, store, agents, and once an agent has written subnet.env, Docker's bridge and
the containers.  Everything that can start at once does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

import pyflannel
from pyflannel.lab import LabError, namespaces, plan, process, record
from pyflannel.lab.plan import Bridge, Host, Plan
from pyflannel.lab.process import Process
from pyflannel.lab.record import Lab
from pyflannel.outputs import SUBNET_FILE, parse_env
from pyflannel.store.api import Unavailable
from pyflannel.store.local import LocalStore

AGENT: Final = (sys.executable, "-m", "pyflannel.cli.flanneld")
"""Our own flanneld, of the same interpreter and source."""

_ETCD_TOOLS = {"etcd": "etcd, or etcd-server on Debian", "etcdctl": "etcd, or etcd-client on Debian"}
_AGENT_PATIENCE_S = 30.0
_END_PATIENCE_S = 3.0
_POLL_S = 0.01
_LOG_TAIL = 8
_AT_ONCE = 8

Progress = Callable[[str], None]
"""Told what is being done, for people who wait."""


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container, as it is now."""

    name: str
    address: IPv4Interface | None
    """None while its host has no subnet."""
    runs: bool


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host, as it is now."""

    host: Host
    bridge: Bridge | None
    """What its subnet.env says; None if there is none, or the host is gone."""
    agent: Process | None
    """None if it does not run."""
    log: Path
    containers: tuple[ContainerStatus, ...]


def up(wanted: Plan, labs: Path, *, agent: Sequence[str] = AGENT, progress: Progress = lambda what: None) -> Lab:
    """Build the lab ``wanted``, recorded under ``labs``, with ``agent`` on every host.

    Whatever stops it (``LabError``, Ctrl-C), what was built so far is taken down again.
    """
    namespaces.require(namespaces.TOOLS | (_ETCD_TOOLS if wanted.etcd else {}))
    lab = record.create(labs, wanted, user_namespace=os.geteuid() != 0)
    try:
        _Builder(lab, agent, progress).build()
    except BaseException:
        down(lab)
        raise
    return lab


def down(lab: Lab) -> None:
    """End every process of the lab and forget it.  What was recorded but is no longer ours is left alone.

    Whatever somebody started inside ends too: a process in a namespace that one of ours lives in is in the lab.
    ``LabError``, and nothing is touched, if the caller is in one of them himself.
    """
    ours = [recorded for recorded in lab.processes.values() if recorded.runs]
    spaces = {recorded.namespace for recorded in ours}
    if process.namespace_of(os.getpid()) in spaces:
        raise LabError(f"lab {lab.plan.name!r} is where you are; leave it first")
    holders = {recorded for name, recorded in lab.processes.items() if not _is_program(name)}
    with _undisturbed():
        # The holders last: as long as they are there, their namespaces' numbers are nobody else's.
        while others := [one for one in process.inhabitants(spaces) if one not in holders]:
            process.end(others, _END_PATIENCE_S)
        process.end((one for one in ours if one in holders), _END_PATIENCE_S)
        record.remove(lab)


def status(lab: Lab) -> tuple[HostStatus, ...]:
    """Every host of the lab."""
    return tuple(_host_status(lab, host) for host in lab.plan.hosts)


def command_in(lab: Lab, name: str, command: Sequence[str], directory: str | None = None) -> list[str]:
    """``command`` as an argument list that runs in the host or container ``name``, or on the switch, in ``directory``.

    ``LabError`` if there is none of that name, or it has ended.
    """
    place = None if _is_program(name) else lab.processes.get(name)
    if place is None:
        known = ", ".join(known for known in lab.processes if not _is_program(known))
        raise LabError(f"lab {lab.plan.name!r} has no {name!r}; it has {known or 'nothing yet'}")
    if not place.runs:
        raise LabError(f"{name} has ended (its process {place.pid} is gone); {_again(lab)}")
    started = command if directory is None else namespaces.inside(directory, command)
    return [*namespaces.entering(place, user=lab.user_namespace), *started]


def environment_in(lab: Lab, name: str) -> dict[str, str]:
    """The environment for a command in ``name``; on a host it has the options of the agent there."""
    env = namespaces.environment()
    if any(host.name == name for host in lab.plan.hosts):
        env |= plan.agent_environment(lab.plan, str(_store(lab)))
    return env


def _store(lab: Lab) -> Path:
    return lab.directory / "store.db"


def _again(lab: Lab) -> str:
    return f"start again with `flannelctl lab down --name {lab.plan.name}` and `flannelctl lab up`"


def _is_program(name: str) -> bool:
    return name == plan.ETCD or "/" in name


def _host_status(lab: Lab, host: Host) -> HostStatus:
    holder, agent = lab.processes.get(host.name), lab.processes.get(plan.agent_name(host.name))
    bridge = None
    if holder is not None and holder.runs:
        with contextlib.suppress(OSError, ValueError):
            bridge = Bridge.of(parse_env(_file_in(holder, SUBNET_FILE).read_text()))
    containers = []
    for number, name in enumerate(host.containers, start=1):
        inside = lab.processes.get(name)
        address = None if bridge is None else bridge.container(number)
        containers.append(ContainerStatus(name, address, inside is not None and inside.runs))
    running = agent if agent is not None and agent.runs else None
    return HostStatus(host, bridge, running, _log(lab, host.name), tuple(containers))


def _file_in(holder: Process, path: str) -> Path:
    """``path`` as the holder sees it."""
    return Path(f"/proc/{holder.pid}/root{path}")


def _log(lab: Lab, name: str) -> Path:
    return lab.directory / f"{name}.log"


class _Builder:
    """One lab on its way up."""

    def __init__(self, lab: Lab, agent: Sequence[str], progress: Progress) -> None:
        self._lab, self._agent, self._progress = lab, agent, progress
        self._plan, self._hosts = lab.plan, lab.plan.hosts
        self._bridges: dict[str, Bridge] = {}
        self._open_hosts: dict[str, str] = {}

    def build(self) -> None:
        self._progress("making the hosts' namespaces")
        self._make_switch()
        self._start({host.name: self._entering(plan.SWITCH, namespaces.host_holder(host.name)) for host in self._hosts})
        self._ip(plan.SWITCH, plan.switch_batch(self._plan, self._pids()))
        self._for_each_host(self._set_up_host)
        if why := next(iter(self._open_hosts.values()), None):
            self._lab.remarks.append(f"FORWARD lets everything pass, where Docker would set DROP: {why}")
        self._progress("starting etcd" if self._plan.etcd else "writing the network configuration")
        self._write_config()
        count = len(self._hosts)
        self._progress(f"starting {count} agents" if count > 1 else "starting the agent")
        self._start_agents()
        self._start(
            {
                name: self._entering(host.name, namespaces.container_holder(name))
                for host in self._hosts
                for name in host.containers
            }
        )
        self._progress("waiting for the agents' subnets")
        for host in self._hosts:
            self._bridges[host.name] = self._await_subnet(host)
        self._progress("starting the containers")
        self._for_each_host(self._set_up_docker)

    def _make_switch(self) -> None:
        user = self._lab.user_namespace
        try:
            self._start({plan.SWITCH: namespaces.outermost(plan.SWITCH, user=user)})
        except LabError as error:
            if not user:
                raise
            raise LabError(namespaces.why_no_user_namespace(str(error), namespaces.read_sysctl)) from error

    def _start(self, commands: Mapping[str, Sequence[str]], env: Mapping[str, str] | None = None) -> None:
        """Start what stays, and record it before it does."""
        names = list(commands)
        for at in range(0, len(names), process.AT_ONCE):
            some = {name: commands[name] for name in names[at : at + process.AT_ONCE]}
            with namespaces.staying(some, env) as processes:
                self._lab.processes.update(processes)
                self._lab.save()

    def _entering(self, where: str, command: Sequence[str]) -> list[str]:
        return [*namespaces.entering(self._lab.processes[where], user=self._lab.user_namespace), *command]

    def _pids(self) -> dict[str, int]:
        return {name: one.pid for name, one in self._lab.processes.items()}

    def _for_each_host(self, work: Callable[[Host], None]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(work, self._hosts))

    def _run(self, where: str, command: Sequence[str], stdin: str = "") -> None:
        namespaces.run(f"setting up {where}: {command[0]}", self._entering(where, command), stdin)

    def _ip(self, where: str, lines: Sequence[str]) -> None:
        self._run(where, ["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))

    def _set_up_host(self, host: Host) -> None:
        self._ip(host.name, plan.host_batch(host))
        self._run(host.name, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        # Docker >= 1.13 does the same when it starts; a lab without it would not show a missing accept rule.
        try:
            self._run(host.name, ["iptables", "-w", "-P", "FORWARD", "DROP"])
        except LabError as error:
            self._open_hosts[host.name] = str(error)

    def _write_config(self) -> None:
        if not self._plan.etcd:
            asyncio.run(self._write_local_config())
            return
        log = _log(self._lab, plan.ETCD)
        command = namespaces.program(plan.etcd_command(str(self._lab.directory / "etcd")), log)
        self._start({plan.ETCD: self._entering(plan.SWITCH, command)})
        try:
            self._run(plan.SWITCH, ["env", "ETCDCTL_API=3", *plan.etcd_put_command()], self._plan.config)
        except LabError as error:
            raise LabError(f"{error}; etcd said last:\n{_tail(log)}") from error

    async def _write_local_config(self) -> None:
        store = LocalStore(_store(self._lab), plan.PREFIX)
        try:
            await store.write_config(self._plan.config)
        except Unavailable as error:
            raise LabError(f"cannot write the network configuration: {error}") from error
        finally:
            await store.close()

    def _start_agents(self) -> None:
        command = plan.agent_command(self._plan, self._agent, str(_store(self._lab)))
        env = namespaces.environment()
        # So that our own agent is found however we were: in a checkout, a virtual environment, a zip file, under sudo.
        source = [str(Path(pyflannel.__file__).parents[1]), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
        env["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in source)
        agents = {}
        for host in self._hosts:
            waiting = namespaces.program(command, _log(self._lab, host.name))
            agents[plan.agent_name(host.name)] = self._entering(host.name, waiting)
        self._start(agents, env)

    def _await_subnet(self, host: Host) -> Bridge:
        """What Docker would be started with on ``host``, once its agent says so."""
        agent = self._lab.processes[plan.agent_name(host.name)]
        file = _file_in(self._lab.processes[host.name], SUBNET_FILE)
        deadline = time.monotonic() + _AGENT_PATIENCE_S
        while not file.exists():
            if not agent.runs:
                raise self._agent_failed(host, "ended")
            if time.monotonic() > deadline:
                raise self._agent_failed(host, f"wrote no {SUBNET_FILE} in {_AGENT_PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)
        try:
            bridge = Bridge.of(parse_env(file.read_text()))
            bridge.container(len(host.containers))
        except ValueError as error:
            raise LabError(f"{host.name}: {error}") from error
        return bridge

    def _agent_failed(self, host: Host, what: str) -> LabError:
        said = _tail(_log(self._lab, host.name))
        return LabError(f"the agent of {host.name} ({shlex.join(self._agent)}) {what}; it said last:\n{said}")

    def _set_up_docker(self, host: Host) -> None:
        bridge = self._bridges[host.name]
        self._ip(host.name, plan.docker_batch(host, bridge, self._pids()))
        for number, name in enumerate(host.containers, start=1):
            self._ip(name, plan.container_batch(bridge, number))


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-_LOG_TAIL:]) or "  (nothing)"


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No Ctrl-C half way through; signals belong to the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
