"""Who reaches whom, as real agents tell one another: at the terminal, and on the page."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pyflannel.linux.netns import inside
from tests.support.machines import eventually
from tests.support.pair import Host, Pair
from tests.support.sse import events

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

TUNNEL = "-p udp --dport 8472"
PAGE = 8287


def at_terminal(host: Host, *flags: str) -> str:
    """What ``flannelctl`` prints on that host."""
    command = [*host.enter, sys.executable, "-m", "pyflannel.cli.flannelctl", "peers", "--matrix", *flags]
    done = subprocess.run(
        [*command, f"--socket={host.home}/flanneld.sock"], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode in (0, 1), done
    return done.stdout


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        yield made


@pytest.fixture
def mute(pair: Pair, tmp_path: Path) -> Iterator[Host]:
    """A third host, whose agent asks nobody and tells nothing."""
    host = Host("host3", pair.switch, "172.16.41.133", pair.store, tmp_path / "host3")
    try:
        host.flags.append("-probe=false")
        yield host
    finally:
        host.close()


class Seen:
    """What the hosts say of one another, asked from one of them."""

    def __init__(self, host: Host) -> None:
        document = json.loads(at_terminal(host, "--json"))
        self.hosts = [host["subnet"] for host in document["hosts"]]
        self._rows = {row["from"]["subnet"]: row for row in document["rows"]}

    def cell(self, here: Host, there: Host) -> str:
        told = self._rows[str(here.subnet)]["to"]
        return "" if told is None else str(told[self.hosts.index(str(there.subnet))]["state"])

    def why(self, here: Host) -> str:
        return str(self._rows[str(here.subnet)]["why"])


def on_page(host: Host, rows: int) -> dict[str, list[Any]]:
    """The latest row of each host, once so many have told or been said not to."""

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", PAGE), timeout=20)

    connection = http.client.HTTPConnection("127.0.0.1", PAGE)
    connection.sock = inside(str(host.space.path), connect)
    with closing(connection):
        connection.request("GET", "/events")
        response = connection.getresponse()
        told = b""
        while True:
            told += response.read1()
            found = {row["from"][0]: row for name, row in events(told) if name == "row"}
            if len(found) == rows:
                return found


def test_what_passes_in_one_direction_only_is_seen_from_both_ends(pair: Pair, mute: Host) -> None:
    one, two = pair.hosts
    one.flags.append("-ui")
    pair.start()

    def ways(host: Host) -> tuple[str, str]:
        seen = Seen(host)
        return seen.cell(one, two), seen.cell(two, one)

    eventually(lambda: ways(one) == ways(two) == ("reachable", "reachable"), "both directions", 40.0)
    two.space.run(f"iptables -I INPUT {TUNNEL} -s {one.address} -j DROP")
    eventually(lambda: ways(one) == ways(two) == ("unreachable", "arrives"), "one direction", 40.0)

    mute.started()
    eventually(lambda: [Seen(host).cell(host, mute) for host in (one, two)] == ["reachable"] * 2, "a third", 40.0)
    seen = Seen(one)
    assert seen.hosts == sorted(str(host.subnet) for host in (one, two, mute))
    assert seen.cell(one, one) == seen.cell(two, two) == "itself"
    assert (seen.cell(mute, one), seen.why(mute)) == ("", "no answer comes")
    assert seen.cell(two, mute) == "reachable"

    table = {line.split()[1]: line for line in at_terminal(one).splitlines()[1:4]}
    assert "lost" in table[str(one.subnet)]
    assert "arrives" in table[str(two.subnet)]
    assert table[str(mute.subnet)].endswith("does not tell: no answer comes")

    rows = on_page(one, 3)
    place = {subnet: number for number, subnet in enumerate(seen.hosts)}
    assert rows[str(one.subnet)]["to"][place[str(two.subnet)]][0] == "unreachable"  # type: ignore[call-overload]
    assert rows[str(two.subnet)]["to"][place[str(one.subnet)]][0] == "arrives"  # type: ignore[call-overload]
    assert rows[str(mute.subnet)]["why"] == "no answer comes"  # type: ignore[call-overload]

    two.space.run("iptables -F INPUT")
    eventually(lambda: ways(one) == ("reachable", "reachable"), "both directions again", 40.0)
