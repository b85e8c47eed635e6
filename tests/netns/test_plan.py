"""Dry runs and clean-ups on a host of their own: what they say, and what they leave as it was."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.lease.model import Snapshot
from pyflannel.store.local import LocalStore
from tests.support.builders import NETWORK
from tests.support.embedded_stores import write_local_record
from tests.support.machines import eventually, stop
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "iptables")

PREFIX = "/coreos.com/network"
CONFIG = f'{{{NETWORK},"Backend":{{"Type":"vxlan"%s}}}}'
PEER = '{"PublicIP":"172.16.41.132","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}'
ROUTE = "10.2.41.0/24 via 10.2.41.0 dev flannel.1 onlink"
FILES = ("subnet.env", "vtep-macs.json", "last-known-coreos.com-network-68396115.jsonl")
NOTHING, FAILED, CHANGES = 0, 1, 2

FOREIGN = """
ip link add flannel.2 type bridge
ip link add flannel.3 type vxlan id 3 dstport 4789 dev ens33
ip link add cni0 type bridge
ip addr add 10.3.0.1/24 dev cni0
ip link set cni0 up
ip route add 10.9.0.0/16 via 172.16.41.9
ip neigh add 172.16.41.9 lladdr 02:00:00:00:00:09 dev ens33 nud permanent
for tool in iptables ip6tables; do
    $tool -N FLANNEL-LIKE
    $tool -A FLANNEL-LIKE -j ACCEPT
    $tool -A FORWARD -m comment --comment "about FLANNEL-FWD" -j FLANNEL-LIKE
    $tool -t nat -A POSTROUTING -j RETURN
done
"""
"""What others have on the host, some of it under names much like ours."""
RESTLESS = re.compile(r"_timer +\S+|state \S+|NO-CARRIER,|,LOWER_UP| linkdown")
"""What changes in a listing by itself: bridges count, and carriers come up when they do."""


class Host:
    """A namespace with ens33 and somebody's things, a local store, and the commands to be tried."""

    def __init__(self, space: Namespace, home: Path) -> None:
        self.space, self.home, self.store = space, home, home / "store.db"
        self.flags = [
            *(f"-store=local:{self.store}", f"-subnet-file={home}/subnet.env", f"-state-dir={home}", "-iface=ens33")
        ]
        self._agent: subprocess.Popen[bytes] | None = None
        # No link-local addresses, which come when they come.
        space.shell("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode")
        space.run("ip link add ens33 type veth peer name far0")
        space.run("ip addr add 172.16.41.131/24 dev ens33")
        space.run("ip link set far0 up")
        space.run("ip link set ens33 up")
        space.shell(FOREIGN)
        self.configure()
        write_local_record(self.store, PREFIX, "10.2.41.0-24", PEER)

    def configure(self, backend_options: str = "") -> None:
        async def write() -> None:
            store = LocalStore(self.store, PREFIX)
            await store.write_config(CONFIG % backend_options)
            await store.close()

        asyncio.run(write())

    def run(self, module: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net={self.space.path}", "--", sys.executable, "-m", module, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    def plan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("pyflannel.cli.flannelctl", "plan", "--no-defaults", *arguments, "--", *self.flags)

    def cleanup(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        inner = ("cleanup", "--no-defaults", *arguments, "--", *self.flags)
        return self.run("pyflannel.cli.flannelctl", *inner, stdin=stdin)

    def agent_ran(self) -> None:
        """Let an agent do all there is to do, and end it."""
        with (self.home / "flanneld.log").open("ab") as log:
            inside = ["nsenter", f"--net={self.space.path}", "--", sys.executable, "-m", "pyflannel.cli.flanneld"]
            self._agent = subprocess.Popen([*inside, *self.flags], stdout=log, stderr=log)
        try:
            said = self.home / "flanneld.log"
            # Said after the audit that follows the first list of leases.
            eventually(lambda: "Subnet added: 10.2.41.0/24" in said.read_text(), "the peer")
            eventually(lambda: "Running backend" in said.read_text(), "the start")
        finally:
            assert stop(self._agent) == 0

    def leases(self) -> Snapshot:
        async def read() -> Snapshot:
            store = LocalStore(self.store, PREFIX)
            snapshot = await store.leases()
            await store.close()
            return snapshot

        return asyncio.run(read())

    def files(self) -> list[str]:
        return [name for name in FILES if (self.home / name).exists()]

    def picture(self) -> str:
        """All that anybody has in this kernel's network, apart from counters and lifetimes."""
        looks = ("ip -d link", "ip addr", "ip route show table all", "ip -6 route", "bridge fdb")
        seen = [self.space.run(look) for look in looks]
        seen += [self.space.run("ip neigh show nud permanent")]
        for tool in ("iptables-save", "ip6tables-save"):
            # An empty table, or a line that only says when, is no difference.
            seen += [line for line in self.space.run(tool).splitlines() if line.startswith(("-A", ":FLANNEL"))]
        return RESTLESS.sub("", "\n".join(seen))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Namespace("plan") as space:
        yield Host(space, tmp_path)


def commands(plan: str) -> list[str]:
    """What a plan would change, without what it explains."""
    return [line for line in plan.splitlines() if not line.startswith("#")]


def test_a_plan_for_a_fresh_host_has_all_of_it_and_touches_nothing(host: Host) -> None:
    before, leases = host.picture(), host.leases()
    done = host.plan()
    assert (done.returncode, done.stderr) == (CHANGES, "")
    for part in (
        *("ip link add flannel.1 up mtu 1450 type vxlan id 1 dstport 8472 dev ens33 local 172.16.41.131 nolearning\n",),
        *("ip address add 10.2.", "/32 dev flannel.1\n", f"ip route add {ROUTE}\n"),
        *("\n:FLANNEL-FWD - [0:0]\n", "-I FORWARD 1 ", "+FLANNEL_NETWORK=10.2.0.0/16\n", "\nlease: take 10.2."),
    ):
        assert part in done.stdout
    assert host.picture() == before
    assert host.leases() == leases
    assert host.leases().revision == leases.revision
    assert host.files() == []


def test_a_dry_run_of_the_agent_says_the_same(host: Host) -> None:
    before = host.picture()
    dry = host.run("pyflannel.cli.flanneld", "-dry-run", *host.flags)
    plan = host.plan()
    assert (dry.returncode, dry.stdout) == (plan.returncode, plan.stdout)
    assert host.picture() == before
    assert host.files() == []


def test_the_kernel_part_of_a_plan_carried_out_by_hand_is_what_was_missing(host: Host) -> None:
    host.agent_ran()
    host.space.run("ip link del flannel.1")
    host.space.run("iptables -F FLANNEL-FWD")
    host.space.shell(host.plan().stdout)
    assert host.plan().returncode == NOTHING


def test_after_a_start_there_is_nothing_to_do(host: Host) -> None:
    host.agent_ran()
    for done in (host.plan(), host.run("pyflannel.cli.flanneld", "-dry-run", *host.flags)):
        assert (done.returncode, commands(done.stdout)) == (NOTHING, ["nothing to do"])
    assert json.loads(host.plan("--json").stdout)["changes"] is False


def test_one_thing_missing_is_one_line(host: Host) -> None:
    host.agent_ran()
    host.space.run("ip route del 10.2.41.0/24")
    done = host.plan()
    assert (done.returncode, commands(done.stdout)) == (CHANGES, [f"ip route add {ROUTE}"])
    assert json.loads(host.plan("--json").stdout)["kernel"] == [f"ip route add {ROUTE}"]


def test_what_an_earlier_run_left_is_to_go_and_a_record_that_is_no_use_is_named(host: Host) -> None:
    host.agent_ran()
    host.space.run("ip route add 10.2.99.0/24 via 10.2.99.0 dev flannel.1 onlink")
    write_local_record(host.store, PREFIX, "10.2.42.0-24", "no JSON at all")
    write_local_record(host.store, PREFIX, "192.168.0.0-24", PEER)
    done = host.plan()
    assert commands(done.stdout) == ["ip route del 10.2.99.0/24 via 10.2.99.0 dev flannel.1 onlink"]
    assert "# ignored: lease 192.168.0.0/24: lies outside the network 10.2.0.0/16" in done.stdout
    assert "10.2.42.0-24" in done.stdout


def test_what_keeps_an_agent_from_starting_keeps_a_plan_from_being_made(host: Host) -> None:
    host.configure(',"VNI":2')
    done = host.plan()
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "there is a device flannel.2 already" in done.stderr


def test_a_clean_up_leaves_the_host_as_it_was_before_the_first_start(host: Host) -> None:
    before = host.picture()
    host.agent_ran()
    leases = host.leases()
    assert host.picture() != before
    assert host.files() == [*FILES]
    done = host.cleanup("--yes")
    assert done.returncode == 0
    assert "ip link del flannel.1\n" in done.stdout
    assert host.picture() == before
    assert host.files() == []
    assert host.leases() == leases
    again = host.cleanup("--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to remove\n")


def test_nothing_is_removed_without_a_yes(host: Host) -> None:
    host.agent_ran()
    before = host.picture()
    dry = host.cleanup("--dry-run")
    assert dry.returncode == 0
    assert f"rm {host.home}/subnet.env\n" in dry.stdout
    assert host.cleanup(stdin="n\n").returncode == 1
    assert host.cleanup().returncode == 1
    assert host.picture() == before
    assert host.files() == [*FILES]


def test_a_device_is_found_by_what_is_remembered_without_any_store_and_under_another_name(host: Host) -> None:
    before = host.picture()
    host.agent_ran()
    host.store.unlink()
    host.space.run("ip link set flannel.1 down")
    host.space.run("ip link set flannel.1 name mine")
    done = host.cleanup("--yes")
    assert done.returncode == 0
    assert "only devices which the state directory remembers" in done.stderr
    assert host.picture() == before


def test_somebodys_device_under_a_name_of_ours_stays_and_is_named(host: Host) -> None:
    host.configure(',"VNI":2')
    before = host.picture()
    done = host.cleanup("--yes")
    assert (done.returncode, done.stdout) == (0, "nothing to remove\n")
    assert "flannel.2 stays: it is of type bridge" in done.stderr
    assert host.picture() == before
