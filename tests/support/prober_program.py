"""A prober as a process of its own, for a host in a namespace: it says what it knows, a line of JSON for each change.

    prober_program.py '{"store": "store.db", "own": "10.2.10.0/24", "address": "172.16.41.131", ...}'

With ``answering`` it takes questions of other hosts, and turns them round.  A line on its input, ``SUBNET WORDS``, is
asked of the agent that has that subnet.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from pyflannel import backends
from pyflannel.backends.api import View
from pyflannel.health import Health
from pyflannel.host import Underlay
from pyflannel.lease.model import Subnet
from pyflannel.lease.network import parse_network_config
from pyflannel.network import Way
from pyflannel.probes.errands import NoAnswer
from pyflannel.probes.outlook import outlook
from pyflannel.probes.prober import Prober
from pyflannel.store.local import LocalStore


@dataclass(frozen=True, slots=True)
class Plan:
    """What the process is told."""

    store: str
    prefix: str
    own: list[str]
    address: str
    address6: str | None = None
    device: str = "ens33"
    mtu: int = 1500
    port: int = 8286


def subnet(nets: list[str]) -> Subnet:
    """As a lease has it."""
    ipv4 = next((IPv4Network(net) for net in nets if ":" not in net), None)
    return Subnet(ipv4, next((IPv6Network(net) for net in nets if ":" in net), None))


async def main(plan: Plan) -> None:
    """Ask and answer, until killed."""
    store = LocalStore(Path(plan.store), plan.prefix)
    snapshot = await store.leases()
    await store.close()
    config, own = parse_network_config(snapshot.config), subnet(plan.own)
    ipv4, ipv6 = IPv4Address(plan.address), IPv6Address(plan.address6) if plan.address6 else None
    under = Underlay(plan.device, 2, plan.mtu, ipv4, ipv6, ipv4, ipv6, "test")
    leases = {lease.subnet: lease for lease in snapshot.leases if lease.subnet != own}
    way = Way(backends.from_config(config), View(config, under, own), leases)
    health = Health()
    prober = Prober(lambda known: outlook(way, known), plan.port, health, answer=backwards)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(prober.run())
        tasks.create_task(_tell(prober, health))
        tasks.create_task(_ask(prober, {str(each): each for each in leases}))


async def backwards(words: bytes) -> bytes:
    """What is answered."""
    return words[::-1]


async def _tell(prober: Prober, health: Health) -> None:
    before = ""
    while True:
        sights = {str(peer): asdict(sight) for peer, sight in prober.sights().items()}
        conditions = [{"code": each.kind.code, "subject": each.subject, "text": each.text} for each in health.present()]
        steady = {peer: {key: sight[key] for key in ("reach", "reason", "mtu")} for peer, sight in sights.items()}
        if (now := json.dumps([steady, conditions])) != before:
            before = now
            print(json.dumps({"sights": sights, "conditions": conditions}), flush=True)
        await asyncio.sleep(0.05)


async def _ask(prober: Prober, peers: dict[str, Subnet]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        peer, _, words = line.decode().strip().partition(" ")
        try:
            said = (await prober.ask(peers[peer], words.encode())).decode()
        except NoAnswer as exc:
            said = f"no answer: {exc}"
        print(json.dumps({"said": said}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Plan(**json.loads(sys.argv[1]))))
