from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

import pyflannel
from pyflannel.diff import Cut, Put, diff
from pyflannel.forwarding import Forwarders
from pyflannel.state import Forwarder, Forwarding, Item, Scope, State
from pyflannel.tunnel.batch import PYTHON
from pyflannel.tunnel.control import Remote, listen
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.forwarder import Forwarder as Process
from tests.support.tunnel_thread import Running

DEV = "flannel0"
SCOPE = Scope(devices=frozenset((DEV, "flannel.1")))
SUBNET = IPv4Network("10.2.71.0/24")


def peer(number: int, host: str = "172.16.41.132") -> Forwarding:
    return Forwarding(DEV, IPv4Network((0x0A030000 + (number << 4), 28)), IPv4Address(host), 8285)


class Serving(Process):
    """A forwarder that takes itself to serve a device: to have one takes privileges."""

    device = DEV

    def serve(self) -> Forwarder:
        """Have an address, and say what an agent sees of that."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        return Forwarder(DEV, IPv4Address("127.0.0.1"), self._sock.getsockname()[1], SUBNET)

    def _device(self) -> str:
        return self.device


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(listen(tmp_path / "flannel0.sock"), PYTHON)
    with Running(made):
        other = remote(tmp_path)
        other.set_own(Own((SUBNET,), SUBNET[0]))
        yield made
        other.stop()
        other.close()


@pytest.fixture
def forwarders(tmp_path: Path) -> Iterator[Forwarders]:
    made = Forwarders(tmp_path)
    yield made
    made.close()


def remote(directory: Path) -> Remote:
    found = Remote.connect(directory / "flannel0.sock")
    assert found is not None
    return found


def held(forwarders: Forwarders) -> set[Item]:
    return set(forwarders.observe(SCOPE))


def test_where_no_forwarder_runs_nothing_is_forwarded(forwarders: Forwarders) -> None:
    assert held(forwarders) == set()
    report = forwarders.apply([Cut(peer(1)), Put(peer(2)), Put(peer(3))])
    assert report.done == (Cut(peer(1)),)
    assert [op for op, _ in report.failed] == [Put(peer(2)), Put(peer(3))]
    # One line in the log, however many peers there are.
    assert {str(error) for _, error in report.failed} == {"forwarding through flannel0: no forwarder runs (EIO)"}


def test_to_end_what_does_not_run_is_no_failure(forwarders: Forwarders, tmp_path: Path) -> None:
    (tmp_path / "flannel0.sock").touch()
    op = Cut(Forwarder(DEV, IPv4Address("127.0.0.1"), 8285, SUBNET))
    assert forwarders.apply([op]).done == (op,)


def test_what_a_running_forwarder_does_is_read_from_it(
    process: Serving, forwarders: Forwarders, tmp_path: Path
) -> None:
    item = process.serve()
    assert held(forwarders) == {item}
    assert item.release == pyflannel.__version__
    # Nothing is to be done for it.
    assert diff(State([item]), State(forwarders.observe(SCOPE))) == ()
    assert forwarders.apply([Put(item)]).failed == ()


def test_what_is_put_and_cut_is_so_and_the_rest_stays(process: Serving, forwarders: Forwarders) -> None:
    item, many = process.serve(), [peer(number) for number in range(600)]
    assert len(forwarders.apply([Put(one) for one in many]).done) == 600
    assert held(forwarders) == {item, *many}
    moved = peer(0, "172.16.41.133")
    report = forwarders.apply([Put(moved, many[0]), *(Cut(one) for one in many[1:300]), Cut(peer(9999))])
    assert report.failed == ()
    assert held(forwarders) == {item, moved, *many[300:]}


def test_the_next_agent_finds_what_the_last_one_left(process: Serving, forwarders: Forwarders, tmp_path: Path) -> None:
    item = process.serve()
    forwarders.apply([Put(peer(number)) for number in range(300)])
    forwarders.close()
    successor = Forwarders(tmp_path)
    assert held(successor) == {item, *(peer(number) for number in range(300))}
    successor.close()


def test_what_another_agent_changed_is_seen(process: Serving, forwarders: Forwarders, tmp_path: Path) -> None:
    item = process.serve()
    forwarders.apply([Put(peer(1))])
    other = Forwarders(tmp_path)
    other.observe(SCOPE)
    assert other.apply([Put(peer(2)), Cut(peer(1))]).failed == ()
    other.close()
    # Not knowing of that we change nothing, and say so; once we have looked, all is as it should be.
    assert [error.code for _, error in forwarders.apply([Put(peer(3))]).failed] == [errno.EIO]
    assert held(forwarders) == {item, peer(2)}
    assert forwarders.apply([Put(peer(3))]).failed == ()
    assert held(forwarders) == {item, peer(2), peer(3)}


def test_one_whose_device_is_gone_is_none(process: Serving, forwarders: Forwarders) -> None:
    process.serve()
    process.device = ""
    assert held(forwarders) == set()


def test_devices_that_are_not_ours_are_not_asked_about(process: Serving, forwarders: Forwarders) -> None:
    process.serve()
    assert list(forwarders.observe(Scope(devices=frozenset(("flannel.1",))))) == []


def test_one_that_ends_is_heard_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        lapsed = asyncio.Event()
        process = Serving(listen(tmp_path / "flannel0.sock"), PYTHON)
        with Running(process):
            process.serve()
            with remote(tmp_path) as other:
                other.set_own(Own((SUBNET,), SUBNET[0]))
                forwarders = Forwarders(tmp_path)
                forwarders.watch(asyncio.get_running_loop(), lapsed.set)
                assert len(held(forwarders)) == 1
                forwarders.apply([Put(peer(1))])
                other.stop()
        await asyncio.wait_for(lapsed.wait(), 20)
        assert held(forwarders) == set()
        forwarders.close()

    asyncio.run(scenario())


def test_one_that_does_not_answer_is_none(tmp_path: Path) -> None:
    with listen(tmp_path / "flannel0.sock"):
        forwarders = Forwarders(tmp_path, patience_s=0.01)
        assert held(forwarders) == set()
        forwarders.close()
