"""Two hosts on a switch, an agent and a container on each, and a probe that says what of their traffic is lost.

    with Pair(tmp_path) as pair:
        pair.start()
        with pair.probing() as probe:
            pair.one.kill()
            pair.one.started()
        assert probe.loss.lost == 0

The agents are processes with one local store between them.  Forwarding is refused unless a rule allows it, as Docker
leaves it, so that every packet of the containers depends on all that the agents keep: device, address, route,
neighbour, FDB entry and firewall.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

from pyflannel.lease.model import Lease
from pyflannel.outputs import read_subnet_env
from pyflannel.store.local import LocalStore
from tests.support import probe
from tests.support.builders import NETWORK
from tests.support.machines import Switch, eventually, hold, stop
from tests.support.namespaces import Namespace
from tests.support.pictures import DEVICE, Picture, differences, picture
from tests.support.probe import Loss

PREFIX = "/coreos.com/network"
CONFIG = f'{{{NETWORK},"Backend":{{"Type":"vxlan"}}}}'
PORT = 7007


@dataclass(frozen=True, slots=True)
class Peer:
    """A host of which there is nothing but its record in the store."""

    subnet: str
    mac: str
    host: str

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.subnet.replace("/", "-")

    @property
    def gateway(self) -> str:
        """The address which its route leads to."""
        return self.subnet.partition("/")[0]

    @property
    def record(self) -> str:
        """Its value, byte for byte as Go flanneld writes it (compat §3.2)."""
        data = f'{{"VNI":1,"VtepMAC":"{self.mac}"}}'
        return f'{{"PublicIP":"{self.host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{data}}}'


class Records:
    """The one store of all hosts, as an administrator and other flannels see it."""

    def __init__(self, path: Path) -> None:
        """Make an empty store at ``path``."""
        self.path = path

        async def make() -> None:
            store = LocalStore(path, PREFIX)
            await store.write_config(CONFIG)
            await store.close()

        asyncio.run(make())
        self.open()

    def open(self) -> None:
        """Take the file in hand, again after ``close``."""
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=10.0)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def configure(self, text: str | None) -> None:
        """Write the network configuration, or remove it."""
        with self._db:
            if text is None:
                self._db.execute("DELETE FROM config WHERE prefix = ?", (PREFIX,))
            else:
                self._db.execute(
                    "INSERT INTO config (prefix, text) VALUES (?, ?)"
                    " ON CONFLICT (prefix) DO UPDATE SET text = excluded.text",
                    (PREFIX, text),
                )

    def write(self, records: Mapping[str, str | None]) -> None:
        """Write these values, or remove where there is none, all in one transaction."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for name, value in records.items():
                if value is None:
                    self._db.execute("DELETE FROM lease WHERE prefix = ? AND name = ?", (PREFIX, name))
                else:
                    self._db.execute(
                        "INSERT INTO lease (prefix, name, value) VALUES (?, ?, ?)"
                        " ON CONFLICT (prefix, name) DO UPDATE SET value = excluded.value, ttl = NULL, expires = NULL",
                        (PREFIX, name, value),
                    )

    def join(self, *peers: Peer) -> None:
        """Hosts appear."""
        self.write({peer.name: peer.record for peer in peers})

    def leave(self, *peers: Peer) -> None:
        """Hosts go."""
        self.write({peer.name: None for peer in peers})

    def leases(self) -> dict[str, Lease]:
        """Every lease, by its subnet."""

        async def read() -> dict[str, Lease]:
            store = LocalStore(self.path, PREFIX)
            snapshot = await store.leases()
            await store.close()
            return {str(lease.subnet): lease for lease in snapshot.leases}

        return asyncio.run(read())


class Host:
    """A namespace with ``ens33`` on the switch, an agent, and a container behind ``docker0``."""

    def __init__(self, hint: str, switch: Switch, address: str, store: Records, home: Path) -> None:
        """Plug the host in with ``address``; its agent keeps its files in ``home``."""
        home.mkdir()
        self.address, self.home, self.store = address, home, store
        self.flags = ["-iface=ens33"]
        """How the agent is told which interface to use, and whatever else a test wants of it."""
        self.environment: dict[str, str] = {}
        """What its agent finds in its environment otherwise than we in ours."""
        self.agent: subprocess.Popen[bytes] | None = None
        self.target = ""
        """The address of its container, once that is there."""
        self.subnet_file = home / "subnet.env"
        self._switch, self._log = switch, home / "flanneld.log"
        self._log.touch()
        self._started_at = 0
        self.space = Namespace(hint)
        self.enter = ["nsenter", f"--net={self.space.path}", "--"]
        """What makes the rest of a command line run on this host."""
        self.container = Namespace(f"{hint}-c")
        self.space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.space.run("iptables -P FORWARD DROP")
        self.plug()

    def close(self) -> None:
        """End the agent, and take everything away."""
        if self.agent is not None:
            stop(self.agent)
        # What outlives an agent: a forwarder, or wireguard-go.  The program that lists them is among them.
        for word in self.space.run(f"ip netns pids {self.space.name}").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), signal.SIGKILL)
        self.container.delete()
        self.space.delete()

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """The agent does nothing during this block, as on a machine that is very slow: what happens in it is whole
        before it is looked at."""
        assert self.agent is not None
        hold(self.agent)
        try:
            yield
        finally:
            self.agent.send_signal(signal.SIGCONT)

    def plug(self) -> None:
        """Give the host its ``ens33``."""
        self._switch.plug(self.space, "ens33", f"{self.address}/24")

    @property
    def subnet(self) -> IPv4Network:
        """As its agent has published it."""
        subnet = read_subnet_env(self.subnet_file.read_text()).ipv4_subnet
        assert subnet is not None
        return subnet

    def settle_in(self, subnet: IPv4Network) -> None:
        """Put up the bridge and the container with addresses of ``subnet``, as Docker does with subnet.env."""
        first, self.target = str(subnet[1]), str(subnet[2])
        self.space.run("ip link add docker0 type bridge")
        self.space.run(f"ip address add {first}/{subnet.prefixlen} dev docker0")
        self.space.run("ip link set docker0 up mtu 1450")
        self.space.run(f"ip link add cable mtu 1450 type veth peer name eth0 mtu 1450 netns {self.container.name}")
        self.space.run("ip link set cable master docker0 up")
        self.container.run(f"ip address add {self.target}/{subnet.prefixlen} dev eth0")
        self.container.run("ip link set eth0 up")
        self.container.run(f"ip route add default via {first}")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the agent and return at once."""
        assert self.agent is None or self.agent.poll() is not None, "one agent is running already"
        self._started_at = self._log.stat().st_size
        command = [sys.executable, "-m", "pyflannel.cli.flanneld", f"--store=local:{self.store.path}"]
        places = [f"-subnet-file={self.subnet_file}", f"--state-dir={self.home}"]
        inside = [*self.enter, *command, *places, *self.flags]
        with self._log.open("ab") as log:
            self.agent = subprocess.Popen(inside, stdout=log, stderr=log, env={**os.environ, **self.environment})
        return self.agent

    def started(self) -> subprocess.Popen[bytes]:
        """Start the agent and return once it has brought in all peers that the store knows."""
        agent = self.start()
        self.await_line("Running backend.")
        here = self.subnet
        for subnet in self.store.leases():
            if subnet != str(here):
                self.await_line(f"Subnet added: {subnet} ")
        return agent

    def await_line(self, text: str, patience: float = 20.0) -> None:
        """Wait until the agent has said ``text`` since its last start."""
        assert self.agent is not None
        agent = self.agent
        eventually(lambda: text in self.said() or agent.poll() is not None, text, patience)
        assert text in self.said(), f"the agent has ended:\n{self.said()}"

    def said(self) -> str:
        """What the agent has written since its last start."""
        with self._log.open(errors="replace") as log:
            log.seek(self._started_at)
            return log.read()

    def forget(self) -> None:
        """All that the agent kept on disk is gone, and so is its device: the host is like a new one."""
        shutil.rmtree(self.home)
        self.home.mkdir()
        self._log.touch()
        self.space.run(f"ip link delete {DEVICE}")

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        assert self.agent is not None
        assert stop(self.agent) == 0, self.said()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGKILL)
        self.agent.wait()

    def picture(self) -> Picture:
        """What its kernel holds."""
        return picture(self.space)

    def await_picture(self, wanted: Picture, what: str, patience: float = 5.0) -> None:
        """Wait until the kernel holds exactly this."""
        try:
            eventually(lambda: self.picture() == wanted, what, patience)
        except AssertionError as late:
            held = self.picture()
            told = differences(wanted.ours, held.ours) + differences(wanted.foreign, held.foreign)
            raise AssertionError("\n".join([str(late), *told, "", self.said()[-3000:]])) from None

    def link(self) -> dict[str, object]:
        """Its device, as ``ip -d link`` has it."""
        (entry,) = self.space.objects(f"ip -j -d link show dev {DEVICE}")
        return entry


class Probing:
    """A probe under way, and afterwards what it found."""

    def __init__(self) -> None:
        self.found: Loss | None = None

    @property
    def loss(self) -> Loss:
        """Once the ``with`` block has ended."""
        assert self.found is not None, "the probe is still under way"
        return self.found


class Pair:
    """Two hosts, ``one`` and ``two``."""

    def __init__(self, home: Path) -> None:
        """Plug them in; nothing runs yet."""
        self.store = Records(home / "store.db")
        self.switch = Switch()
        self.one = Host("host1", self.switch, "172.16.41.131", self.store, home / "host1")
        self.two = Host("host2", self.switch, "172.16.41.132", self.store, home / "host2")
        self.hosts: tuple[Host, ...] = (self.one, self.two)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            host.close()
        self.switch.delete()
        self.store.close()

    def start(self) -> None:
        """Start both agents, and return once the containers reach each other."""
        self._settle_in()
        self.one.await_line(f"Subnet added: {self.two.subnet} ")
        self.two.await_line(f"Subnet added: {self.one.subnet} ")
        self.await_contact()

    def _settle_in(self) -> None:
        """Start all agents, and give each host its bridge and container."""
        for host in self.hosts:
            host.start()
        for host in self.hosts:
            host.await_line("Running backend.")
        for host in self.hosts:
            host.settle_in(host.subnet)

    def await_contact(self) -> None:
        """Return once a datagram has crossed, and come back."""
        with self.probing():
            pass

    def probe_for(self, seconds: float) -> Loss:
        """What is lost in so many seconds in which nothing happens."""
        with self.probing() as probing:
            time.sleep(seconds)
        return probing.loss

    @contextmanager
    def losing_nothing(self) -> Iterator[None]:
        """What happens in this block costs no packet."""
        with self.probing() as probing:
            yield
        assert probing.loss.lost == 0, f"{probing.loss}\n{self.one.said()[-3000:]}"

    @contextmanager
    def probing(self) -> Iterator[Probing]:
        """Send 1,000 datagrams a second from container to container and back, for as long as the block takes."""
        with (
            _program(self.two.container, "reflect", str(PORT)),
            _program(self.one.container, "send", self.two.target, str(PORT)) as sender,
        ):
            probing = Probing()
            yield probing
            output, _ = sender.communicate()
            probing.found = Loss(**json.loads(output))


@contextmanager
def _program(space: Namespace, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One end of a probe, ready; killed at the end of the block if it still runs."""
    command = [sys.executable, "-S", "-E", probe.__file__, *arguments]
    process = subprocess.Popen(
        ["nsenter", f"--net={space.path}", "--", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said, f"no datagram has come through to {arguments[1:]} and back"
        yield process
    finally:
        process.kill()
        process.communicate()
