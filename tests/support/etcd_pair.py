"""The two hosts of ``pair`` with a real etcd of three members between them, all on one switch.

    with EtcdPair(tmp_path) as pair:
        pair.start()
        with pair.probing() as probe:
            pair.etcd.kill(pair.serving())
            pair.newcomer()
        assert probe.loss.lost == 0

Each member has a machine of its own, and so has the administrator: whatever is cut off from whatever, he can still ask
the others, and nothing they say to each other leaves the namespaces.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from pyflannel.lease.model import Lease
from tests.support.etcd_cluster import EtcdCluster, Place
from tests.support.etcd_records import Api, EtcdRecords, inside
from tests.support.machines import Switch, eventually
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Host, Pair, Peer
from tests.support.pictures import Half
from tests.support.pki import issue, make_pki
from tests.support.route_news import RouteNews

CONSOLE: Final = "172.16.41.10"
MEMBERS: Final = ("172.16.41.11", "172.16.41.12", "172.16.41.13")
SERVER: Final = f"subjectAltName={','.join(f'IP:{each}' for each in MEMBERS)}\nextendedKeyUsage=serverAuth,clientAuth\n"
"""What a certificate of the members says, for ``pki.issue``."""
PASSWORD: Final = "hidden"
PEERS: Final = (
    Peer("10.2.241.0/24", "02:00:00:00:00:41", "172.16.41.141"),
    Peer("10.2.242.0/24", "02:00:00:00:00:42", "172.16.41.142"),
)
"""In the store from the start."""

_METRICS: Final = "http://127.0.0.1:9979"
"""In the namespace of each member."""
_WATCHERS: Final = re.compile(r"^etcd_debugging_(?:mvcc_watcher_total|store_watchers) (\S+)$", re.MULTILINE)
"""Of the v3 and the v2 API."""
_FETCH: Final = f"import urllib.request as web; print(web.urlopen('{_METRICS}/metrics', timeout=2).read().decode())"
_BUSTLE: Final = """
import http.client, os, sys, threading

def write(target):
    connection = http.client.HTTPConnection(target, timeout=5)
    for number in range(70):
        connection.request("PUT", "/v2/keys/elsewhere?value=x")
        answer = connection.getresponse()
        if answer.status not in (200, 201):
            os._exit(1)
        answer.read()

threads = [threading.Thread(target=write, args=[target]) for target in sys.argv[1].split() * 6]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
_RELAY: Final = """
import asyncio, sys
from tests.support.relay import Relay

async def main():
    async with Relay(sys.argv[1], float(sys.argv[2])) as relay:
        print(relay.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class EtcdPair(Pair):
    """Two hosts, ``one`` and ``two``, and their etcd."""

    def __init__(self, home: Path, *, api: Api = "v3", guarded: bool = False, quota: int | None = None) -> None:
        """Plug all in; nothing runs yet.

        ``guarded``: TLS on both sides, a password, and tokens that are good for a second.  ``quota``: bytes.
        """
        self.switch, self.console = Switch(), Namespace("console")
        self.members = [Namespace(f"etcd{number}") for number in range(len(MEMBERS))]
        for space, address in zip((self.console, *self.members), (CONSOLE, *MEMBERS), strict=True):
            self.switch.plug(space, "eth0", f"{address}/24")
        self.pki = make_pki(home / "pki") if guarded else None
        arguments = [f"--listen-metrics-urls={_METRICS}", f"--enable-v2={str(api == 'v2').lower()}"]
        if self.pki is not None:
            issue(self.pki, "server", SERVER)
            arguments.append("--auth-token-ttl=1")
        (home / "etcd").mkdir()
        places = [Place(address, space.name) for space, address in zip(self.members, MEMBERS, strict=True)]
        self.etcd = EtcdCluster(home / "etcd", places=places, quota=quota, pki=self.pki, arguments=arguments)
        self.records = EtcdRecords(self.etcd.urls, self.console, api, _administrator(self.pki))
        self.store = self.records
        self.one = Host("host1", self.switch, "172.16.41.131", self.store, home / "host1")
        self.two = Host("host2", self.switch, "172.16.41.132", self.store, home / "host2")
        self.hosts = (self.one, self.two)
        for host in self.hosts:
            # The last of several counts: this takes back the local store of other pairs.
            host.flags += ["--store=", f"-etcd-api={api[1]}", f"-etcd-endpoints={','.join(self.etcd.urls)}"]
            host.flags += _agent(self.pki)
        self.news: dict[Host, RouteNews] = {}
        self._numbers = iter(range(100, 240))
        """Own leases are below, and ``PEERS`` above.  None comes again, lest the news of one be taken for another's."""

    def __enter__(self) -> EtcdPair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for news in self.news.values():
            news.close()
        super().__exit__(kind, error, trace)
        self.etcd.kill()
        for space in (self.console, *self.members):
            space.delete()

    def start(self) -> None:
        """Start all, and return once the containers reach each other and all peers are known."""
        self.etcd.start()
        if self.pki is not None:
            for command in (f"user add root:{PASSWORD}", "user grant-role root root", "auth enable"):
                self.etcd.ctl(*command.split())
            self.etcd.who = [f"--user=root:{PASSWORD}"]
        self.records.configure(CONFIG)
        self.records.join(*PEERS)
        super().start()
        self.news = {host: RouteNews(host.space, host.home / "routes") for host in self.hosts}
        self.agree()

    # Faults

    def part(self, member: int) -> None:
        """Cut a member off from everybody; nobody is told."""
        self.members[member].run("iptables -A INPUT -i eth0 -j DROP")
        self.members[member].run("iptables -A OUTPUT -o eth0 -j DROP")

    def cut_off(self, *hosts: Host, told: bool = False) -> None:
        """Let no member hear these hosts any more.  ``told``: each time they say something, they are told so."""
        how = "REJECT --reject-with tcp-reset" if told else "DROP"
        for member in self.members:
            for host in hosts:
                member.run(f"iptables -A INPUT -p tcp -s {host.address} -j {how}")

    def mend(self) -> None:
        """Let everybody hear everybody."""
        for member in self.members:
            member.run("iptables -F")

    def heal(self) -> None:
        """End all faults."""
        self.mend()
        self.etcd.heal()

    @contextmanager
    def slow(self, host: Host, seconds: float) -> Iterator[None]:
        """An agent of ``host`` that gets every answer of etcd so much later, and then one that does not."""
        script = [sys.executable, "-c", _RELAY, self.etcd.urls[0], str(seconds)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        relay = subprocess.Popen([*inside(host.space), *script], stdout=subprocess.PIPE, text=True, env=environment)
        with relay:
            try:
                assert relay.stdout is not None
                host.stop()
                host.flags.append(f"-etcd-endpoints={relay.stdout.readline().strip()}")
                host.started()
                yield
                host.stop()
                host.flags.pop()
                host.started()
            finally:
                relay.kill()

    # Questions

    def serving(self) -> int:
        """The member at which most agents watch."""
        watchers: list[int] = []

        def all_watch() -> bool:
            watchers[:] = [self._watchers(member) for member in self.members]
            return sum(watchers) >= len(self.hosts)

        eventually(all_watch, "a watch of each agent")
        return watchers.index(max(watchers))

    def strangers(self) -> set[str]:
        """The subnets of all hosts that are in the store, and of which there is nothing else."""
        return self.records.leases().keys() - {str(host.subnet) for host in self.hosts}

    def join(self, count: int) -> list[Peer]:
        """So many hosts appear in the store and are known to both of ours."""
        peers = [self.appear() for _ in range(count)]
        self.agree()
        return peers

    def newcomer(self, repair: Callable[[], object] = lambda: None, patience: float = 10.0) -> str:
        """Let a host appear in the store, and wait until a route to it stands on both of ours.

        Its record is written as soon as that can be done, while ``repair`` is going on.  In words, how many seconds
        after that the routes stood.
        """
        peer = self._newcomer()
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(self.records.insist, peer)
            repair()
            since = written.result()
        return " / ".join(f"{self._programmed_at(host, peer, patience) - since:.2f}" for host in self.hosts)

    def appear(self) -> Peer:
        """A host appears in the store, and nobody waits until others know it."""
        self.records.insist(peer := self._newcomer())
        return peer

    def bustle(self) -> None:
        """More happens in the v2 store than it remembers: 1,000 changes."""
        targets = " ".join(url.removeprefix("http://") for url in self.etcd.urls)
        subprocess.run([*inside(self.console), sys.executable, "-S", "-E", "-c", _BUSTLE, targets], check=True)

    def recover(self) -> None:
        """End all faults, and put back what a test may have taken; ``AssertionError`` if there is no agreement then."""
        self.heal()
        self.records.configure(CONFIG)
        self.records.join(*PEERS)
        self.agree()

    def agree(self) -> None:
        """Wait until both kernels hold what the store says, neither more nor less; each host has its own lease."""
        eventually(self._have_their_leases, "both leases", 10.0)
        leases = {subnet: _said(lease) for subnet, lease in self.records.leases().items()}
        for host in self.hosts:
            assert host.agent is not None
            assert host.agent.poll() is None, f"the agent has ended:\n{host.said()[-3000:]}"
            wanted = {subnet: said for subnet, said in leases.items() if subnet != str(host.subnet)}
            give_up = time.monotonic() + 10.0
            while (held := reached(host.picture().ours)) != wanted:
                assert time.monotonic() < give_up, f"{host.address} holds {held}, not {wanted}:\n{host.said()[-3000:]}"
                time.sleep(0.05)

    def _have_their_leases(self) -> bool:
        leases = self.records.leases()
        owned = [leases.get(str(host.subnet)) for host in self.hosts]
        return [_said(lease)[1] for lease in owned if lease is not None] == [host.address for host in self.hosts]

    def _newcomer(self) -> Peer:
        number = next(self._numbers)
        return Peer(f"10.2.{number}.0/24", f"02:00:00:00:01:{number:02x}", f"172.16.41.{number}")

    def _programmed_at(self, host: Host, peer: Peer, patience: float) -> float:
        try:
            eventually(lambda: self.news[host].made_at(peer.subnet) is not None, peer.subnet, patience)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{host.said()[-3000:]}") from None
        moment = self.news[host].made_at(peer.subnet)
        assert moment is not None
        return moment

    def _watchers(self, member: Namespace) -> int:
        command = [*inside(member), sys.executable, "-S", "-E", "-c", _FETCH]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return sum(int(float(number)) for number in _WATCHERS.findall(told))


def reached(ours: Half) -> dict[str, tuple[str, str]]:
    """MAC address and host behind each subnet to which a route stands, as neighbour and FDB entry have it.

    A neighbour without a route, or an FDB entry without a neighbour, is in it under a name that no subnet has.
    """
    hosts = dict(_pick(line, "mac=", "dst=") for line in ours.fdb)
    macs = {line.split()[1]: line.split()[2] for line in ours.neighbours}
    routes = dict(_pick(line, "dst=", "gateway=") for line in ours.routes if "table=main" in line)
    found = {subnet: (mac := macs.pop(gateway, ""), hosts.pop(mac, "")) for subnet, gateway in routes.items()}
    strays = {f"no route to {gateway}": (mac, hosts.pop(mac, "")) for gateway, mac in macs.items()}
    return found | strays | {f"nobody has {mac}": (mac, host) for mac, host in hosts.items()}


def _administrator(pki: Path | None) -> list[str]:
    """How etcdctl proves who it is."""
    if pki is None:
        return []
    files = [f"--cacert={pki / 'ca.pem'}", f"--cert={pki / 'server.pem'}", f"--key={pki / 'server.key'}"]
    return [*files, f"--user=root:{PASSWORD}"]


def _agent(pki: Path | None) -> list[str]:
    """How flanneld proves who it is."""
    if pki is None:
        return []
    files = {"cafile": "ca.pem", "certfile": "client.pem", "keyfile": "client.key"}
    options = [f"-etcd-{option}={pki / name}" for option, name in files.items()]
    return [*options, "-etcd-username=root", f"-etcd-password={PASSWORD}"]


def _pick(line: str, *keys: str) -> tuple[str, str]:
    one, two = (word.removeprefix(key) for key in keys for word in line.split() if word.startswith(key))
    return one, two


def _said(lease: Lease) -> tuple[str, str]:
    return str(json.loads(lease.attrs.backend_data or "{}").get("VtepMAC")), str(lease.attrs.public_ip)
