"""From the start of the process to subnet.env and to the last peer in the kernel, and the memory it takes.

The agent is an installed copy, compiled as pip leaves it, in a namespace of its own.  "warm" means that its lease and
its device were there before, as after a restart.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.bench.table import show, spread
from tests.support.machines import stop
from tests.support.namespaces import Namespace

ROOT = Path(__file__).parents[2]
RUNS = 7
PEERS = (0, 1000)
CONFIG = '{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}'
PREFIX = "/coreos.com/network"
ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Sample:
    """One start of the agent."""

    subnet_env_s: float
    peers_s: float
    resident_mb: float
    """Once all peers are in the kernel."""


def main() -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as where:
        program = install(Path(where))
        for api in ("3", "2"):
            for peers in PEERS:
                samples = measure(program, Path(where), api, peers)
                rows.append(
                    [
                        f"etcd v{api}",
                        str(peers),
                        spread([sample.subnet_env_s for sample in samples]),
                        spread([sample.peers_s for sample in samples]),
                        spread([sample.resident_mb for sample in samples], 1),
                    ]
                )
    head = ["store", "peers", "start → subnet.env, s", "start → last peer's route, s", "resident memory, MB"]
    show(f"Start of the agent, warm; median (least–greatest) of {RUNS}", head, rows)


def install(where: Path) -> Path:
    """The agent as pip installs it, compiled."""
    venv = where / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/pip"), "install", "--quiet", "--compile", str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    return venv / "bin/flanneld"


def measure(program: Path, where: Path, api: str, peers: int) -> list[Sample]:
    """Several starts over one store and one kernel, the first not counted."""
    with Namespace("bench") as space, etcd(space, where / f"etcd-{api}-{peers}", api):
        space.run("ip link add ens33 type veth peer name far0")
        space.run("ip addr add 172.16.0.1/12 dev ens33")
        space.run("ip link set ens33 up")
        space.run("ip link set far0 up")
        fill(space, api, peers)
        samples = [one_start(program, space, where, api, peers) for _ in range(RUNS + 1)]
    return samples[1:]


@contextmanager
def etcd(space: Namespace, data: Path, api: str) -> Iterator[None]:
    """A real etcd inside ``space``."""
    command = ["etcd", f"--data-dir={data}", f"--enable-v2={'true' if api == '2' else 'false'}", "--log-level=error"]
    process = subprocess.Popen(space.argv(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while subprocess.run(space.argv("etcdctl", "endpoint", "health"), capture_output=True, check=False).returncode:
            time.sleep(0.1)
        yield
    finally:
        stop(process)


def fill(space: Namespace, api: str, peers: int) -> None:
    """Write the configuration and the leases of ``peers`` hosts, as another flannel would."""
    subnets = IPv4Network("10.0.0.0/8").subnets(new_prefix=24)
    next(subnets)
    records = {f"{PREFIX}/config": CONFIG}
    for number, subnet in zip(range(peers), subnets, strict=False):
        host, mac = IPv4Address("172.16.1.0") + number, (0x02_00_00_00_00_00 + number).to_bytes(6).hex(":")
        data = f'{{"VNI":1,"VtepMAC":"{mac}"}}'
        value = f'{{"PublicIP":"{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{data}}}'
        records[f"{PREFIX}/subnets/{str(subnet).replace('/', '-')}"] = value
    script = _V3 if api == "3" else _V2
    subprocess.run(space.argv(sys.executable, "-c", script), input=repr(records), text=True, check=True)


_V3 = f"""
import ast, asyncio, sys
from base64 import b64encode
from urllib.request import Request, urlopen
import json
def text(value): return b64encode(value.encode()).decode()
for key, value in ast.literal_eval(sys.stdin.read()).items():
    body = json.dumps({{"key": text(key), "value": text(value)}}).encode()
    urlopen(Request("{ETCD}/v3/kv/put", body)).read()
"""
_V2 = f"""
import ast, sys
from urllib.parse import urlencode
from urllib.request import Request, urlopen
for key, value in ast.literal_eval(sys.stdin.read()).items():
    urlopen(Request("{ETCD}/v2/keys" + key, urlencode({{"value": value}}).encode(), method="PUT")).read()
"""


def one_start(program: Path, space: Namespace, where: Path, api: str, peers: int) -> Sample:
    """Start the agent over what is there, look at it, and stop it again."""
    subnet_file = where / "subnet.env"
    subnet_file.unlink(missing_ok=True)
    space.shell("ip route flush dev flannel.1 2>/dev/null || true")
    command = [
        str(program),
        f"-etcd-endpoints={ETCD}",
        f"-subnet-file={subnet_file}",
        f"-state-dir={where}",
        "-iface=ens33",
    ]
    # nsenter execs the agent, so that its process is the one we started.
    inside = ["nsenter", f"--net={space.path}", "--", *command]
    began = time.monotonic()
    with (where / f"flanneld-{api}-{peers}.log").open("wb") as log:
        process = subprocess.Popen(inside, stdout=log, stderr=log)
    try:
        while not subnet_file.exists():
            time.sleep(0.0005)
        written = time.monotonic() - began
        while routes(space) < peers:
            time.sleep(0.005)
        programmed = time.monotonic() - began
        time.sleep(0.5)
        resident = resident_mb(process.pid)
    finally:
        stop(process)
    return Sample(written, programmed, resident)


def routes(space: Namespace) -> int:
    """How many routes lead through the tunnel."""
    done = subprocess.run(
        ["ip", "-n", space.name, "-o", "route", "show", "dev", "flannel.1"], capture_output=True, text=True, check=False
    )
    return done.stdout.count("\n")


def resident_mb(pid: int) -> float:
    """VmRSS in MB (proc_pid_status(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the agent has ended")
