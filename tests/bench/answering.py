"""All hosts of a benchmark's cluster in one namespace: each address of theirs answers, by the tunnel and beside it.

They answer the agent's questions, and ask it as often as all hosts of such a cluster would: each asks ``MOST`` in a
``PERIOD``, of as many peers, and all at the same moment.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
import time
from ipaddress import IPv4Address, ip_address
from types import TracebackType
from typing import Final

from pyflannel.outputs import read_subnet_env
from pyflannel.probes import wire
from pyflannel.probes.schedule import MOST, PERIOD
from pyflannel.probes.sockets import Port
from pyflannel.probes.wire import Arrivals, Kind, Packet
from pyflannel.settings import OPTIONS
from tests.bench.stage import Stage
from tests.support.machines import stop
from tests.support.namespaces import Namespace

PORT: Final = int(str(OPTIONS["probe-port"].default))
HERE: Final = "172.16.0.2"
AGENT: Final = "172.16.0.1"


class Answering:
    """The other hosts of a stage, once its agent has its subnet."""

    def __init__(self, stage: Stage) -> None:
        """Nobody answers yet."""
        self._stage, self._space = stage, Namespace("bench-others")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Answering:
        here, space = self._stage.space, self._space
        own = read_subnet_env(self._stage.subnet_file.read_text()).subnet
        assert own is not None
        assert own.ipv4 is not None
        end, mac = own.ipv4[0], here.run("cat /sys/class/net/flannel.1/address").strip()
        here.run(f"ip link set far0 netns {space.path.name}")
        space.shell(
            f"""
            ip link set lo up
            ip address add {HERE}/32 dev far0
            ip link set far0 up
            ip route add {AGENT}/32 dev far0
            ip route add local 172.16.0.0/16 dev lo
            ip link add vx type vxlan id 1 dstport 8472 dev far0 nolearning
            ip link set vx up
            ip route add local 10.0.0.0/8 dev lo
            ip route add {own.ipv4} dev vx
            ip neigh add {end} lladdr {mac} dev vx nud permanent
            bridge fdb add {mac} dev vx dst {AGENT}
            for each in all far0 vx; do echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter; done
            """
        )
        # What is for the MAC of any of them is for this one.
        chain = "type filter hook ingress device vx priority 0\nmeta pkttype set host"
        space.run("nft -f -", stdin=f"table netdev others {{\nchain taken {{\n{chain}\n}}\n}}\n")
        command = [sys.executable, "-m", "tests.bench.answering", str(end), str(self._stage.peers)]
        self._process = subprocess.Popen(space.argv(*command))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            stop(self._process)
        self._space.delete()


def _serve(end: IPv4Address, peers: int) -> None:
    """Answer, and ask, for ever."""
    port, numbers, due = Port(4, PORT), dict[IPv4Address, int](), time.time() // PERIOD * PERIOD
    while True:
        select.select([port], [], [], max(0.0, due - time.time()))
        for received in port.receive(64):
            packet = wire.decode(received.data)
            if packet.kind is Kind.QUESTION:
                seen = Arrivals(packet.number, 0xFFFFFFFF)
                answer = Packet(Kind.ANSWER, packet.nonce, packet.run, packet.number, seen, seen)
                port.send(wire.encode(answer), received.source, received.destination)
        if time.time() >= due:
            due += PERIOD
            for number in random.sample(range(peers), MOST):
                source = IPv4Address("10.0.1.0") + (number << 8)
                numbers[source] = numbers.get(source, 0) + 1
                question = Packet(Kind.QUESTION, random.getrandbits(64), 1, numbers[source])
                port.send(wire.encode(question), end, source)


if __name__ == "__main__":
    _serve(IPv4Address(ip_address(sys.argv[1])), int(sys.argv[2]))
