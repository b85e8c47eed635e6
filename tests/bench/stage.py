"""Where the benchmarks happen: one host in a network namespace, with a real etcd full of leases, and the agent on it.

The agent is an installed copy, compiled as pip leaves it.  Nothing outside the namespace and a temporary directory is
touched.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path
from socket import AF_INET
from types import TracebackType
from urllib.parse import urlencode

from pyflannel.linux import routes
from pyflannel.linux.devices import Devices
from pyflannel.linux.netlink import Conversation, open_socket
from pyflannel.linux.netns import inside
from tests.support.machines import stop
from tests.support.namespaces import Namespace

ROOT = Path(__file__).parents[2]
CONFIG = '{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}'
PREFIX = "/coreos.com/network"
PORT = 2379
PUTS_AT_ONCE = 100
"""Of the 128 that etcd allows in one transaction."""


def install(where: Path) -> Path:
    """The agent as pip installs it, compiled."""
    venv = where / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/pip"), "install", "--quiet", "--compile", str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    return venv / "bin/flanneld"


class Stage:
    """A host, an etcd with the configuration and ``peers`` leases in it, and no agent yet."""

    def __init__(self, program: Path, where: Path, peers: int, api: str = "3") -> None:
        """``program`` is the agent; ``where`` an existing directory that is ours."""
        self.peers = peers
        self.space = Namespace("bench")
        self._program, self._api = program, api
        self._where = where / f"etcd{api}-{peers}"
        self._where.mkdir(exist_ok=True)
        self.subnet_file = self._where / "subnet.env"
        self._etcd: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        self.space.run("ip link add ens33 type veth peer name far0")
        self.space.run("ip addr add 172.16.0.1/12 dev ens33")
        self.space.run("ip link set ens33 up")
        self.space.run("ip link set far0 up")
        command = [f"--data-dir={self._where / 'data'}", f"--enable-v2={'true' if self._api == '2' else 'false'}"]
        with (self._where / "etcd.log").open("wb") as log:
            self._etcd = subprocess.Popen(
                self.inside("etcd", *command, "--log-level=error", "--snapshot-count=10000000"), stdout=log, stderr=log
            )
        while subprocess.run(self.inside("etcdctl", "endpoint", "health"), capture_output=True, check=False).returncode:
            time.sleep(0.1)
        self.store = Etcd(self.space)
        records = {f"{PREFIX}/config": CONFIG} | dict(islice(leases(), self.peers))
        (self.store.put_v2 if self._api == "2" else self.store.put)(records)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        if self._etcd is not None:
            stop(self._etcd)
        self.space.delete()

    def inside(self, *command: str) -> list[str]:
        """``command`` as an argument list that runs here; its process is the one started."""
        return ["nsenter", f"--net={self.space.path}", "--", *command]

    @contextmanager
    def agent(self, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        """The agent, with these flags beside its own, stopped at the end of the block."""
        self.subnet_file.unlink(missing_ok=True)
        options = [
            f"-etcd-endpoints=http://127.0.0.1:{PORT}",
            f"-subnet-file={self.subnet_file}",
            f"-state-dir={self._where}",
            "-iface=ens33",
        ]
        with (self._where / "flanneld.log").open("wb") as log:
            process = subprocess.Popen(self.inside(str(self._program), *options, *flags), stdout=log, stderr=log)
        try:
            yield process
        finally:
            stop(process)

    def await_peers(self) -> None:
        """Return once the kernel has a route to every peer."""
        with closing(Routes(self.space)) as routes:
            while not self.subnet_file.exists() or routes.count() < self.peers:
                time.sleep(0.005)

    def forget_device(self) -> None:
        """The kernel as after a reboot; the lease stays."""
        self.space.shell("ip link delete flannel.1 2>/dev/null || true")


class Etcd:
    """An HTTP client of the etcd in a namespace, quick enough to measure with."""

    def __init__(self, space: Namespace) -> None:
        """Connect from inside."""
        self._http = http.client.HTTPConnection("127.0.0.1", PORT)
        self.socket = inside(str(space.path), lambda: socket.create_connection(("127.0.0.1", PORT)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http.sock = self.socket

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def put(self, records: dict[str, str]) -> None:
        """Write records, many in one transaction."""
        pairs = iter(records.items())
        while some := list(islice(pairs, PUTS_AT_ONCE)):
            puts = [{"requestPut": {"key": _text(key), "value": _text(value)}} for key, value in some]
            self.begin("/v3/kv/txn", {"success": puts})
            self.finish()

    def put_v2(self, records: dict[str, str]) -> None:
        """Write records in the v2 API."""
        for key, value in records.items():
            head = {"Content-Type": "application/x-www-form-urlencoded"}
            self._http.request("PUT", "/v2/keys" + key, urlencode({"value": value}), head)
            self.finish()

    def begin_put(self, key: str, value: str) -> None:
        """Ask for one record to be written; ``finish`` waits for the answer."""
        self.begin("/v3/kv/put", {"key": _text(key), "value": _text(value)})

    def begin_delete(self, key: str) -> None:
        """Ask for one record to be removed."""
        self.begin("/v3/kv/deleterange", {"key": _text(key)})

    def begin(self, path: str, body: object) -> None:
        """Send a request."""
        self._http.request("POST", path, json.dumps(body))

    def finish(self) -> None:
        """Wait for the answer."""
        answer = self._http.getresponse()
        text = answer.read()
        assert answer.status in (200, 201), text


class Routes:
    """Counts the routes of ``flannel.1`` without reading them."""

    def __init__(self, space: Namespace) -> None:
        """Look into ``space``."""
        self._conversation = Conversation(open_socket(str(space.path)))

    def count(self) -> int:
        """How many there are now; 0 while there is no device."""
        index = Devices(self._conversation).index("flannel.1")
        return len(self._conversation.dump("counting routes", routes.query(AF_INET, index))) if index else 0

    def close(self) -> None:
        """Look no more."""
        self._conversation.close()


def leases(first: int = 0) -> Iterator[tuple[str, str]]:
    """Key and value of the leases of hosts ``first`` and on, as flannel writes them."""
    base = int(IPv4Address("10.0.1.0"))
    while True:
        yield lease(IPv4Network((base + (first << 8), 24)), first)
        first += 1


def lease(subnet: IPv4Network, number: int) -> tuple[str, str]:
    """Key and value of one host's lease."""
    host, mac = IPv4Address("172.16.1.0") + number, (0x02_00_00_00_00_00 + number).to_bytes(6).hex(":")
    data = f'{{"VNI":1,"VtepMAC":"{mac}"}}'
    value = f'{{"PublicIP":"{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{data}}}'
    return f"{PREFIX}/subnets/{str(subnet).replace('/', '-')}", value


def resident_mb(pid: int) -> float:
    """VmRSS in MB (proc_pid_status(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the agent has ended")


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample that ``share`` of all do not exceed."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def _text(value: str) -> str:
    return b64encode(value.encode()).decode()
