"""Places: opened, kept open, shared; on the loopback and in the file system alone."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from pyflannel.conditions import NOT_SERVED
from pyflannel.health import Health
from pyflannel.telemetry import server as module
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.server import BACKLOG, MOST, ControlSocket, Place, Port, Server, Taken
from pyflannel.telemetry.usage import Usage
from tests.support.loops import run

ASKED = b"GET / HTTP/1.0\r\n\r\n"


async def hello(_request: Request) -> Response:
    return Response(200, b"hello")


@asynccontextmanager
async def serving(*places: Place, health: Health | None = None) -> AsyncIterator[Health]:
    """A server of these places that says hello to everybody."""
    health = health or Health()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Server([(place, hello) for place in places], health).run(), name="server")
        await asyncio.sleep(0)
        yield health
        running.cancel()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def ask(place: str | int) -> bytes:
    """What is said at a path, or at a port of this machine; tried until somebody listens."""
    async with asyncio.timeout(5):
        while True:
            try:
                connected = (
                    asyncio.open_unix_connection(place)
                    if isinstance(place, str)
                    else asyncio.open_connection("127.0.0.1", place)
                )
                reader, writer = await connected
            except (FileNotFoundError, ConnectionError):
                await asyncio.sleep(0.01)
                continue
            writer.write(ASKED)
            told = await reader.read()
            writer.close()
            return told


def test_a_port_and_a_control_socket_are_served_and_closed_at_the_end(tmp_path: Path) -> None:
    path, port = tmp_path / "run" / "flanneld.sock", free_port()

    async def scenario() -> None:
        async with serving(ControlSocket(path), Port(IPv4Address("127.0.0.1"), port)) as health:
            assert (await ask(str(path))).endswith(b"hello")
            assert (await ask(port)).endswith(b"hello")
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert not health.present()
        assert not path.exists()
        with socket.create_server(("127.0.0.1", port)):
            pass

    run(scenario())


def test_every_address_is_served_where_none_is_named() -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(Port(IPv4Address("0.0.0.0"), port)):
            assert (await ask(port)).endswith(b"hello")
            if socket.has_dualstack_ipv6():
                reader, writer = await asyncio.open_connection("::1", port)
                writer.write(ASKED)
                assert (await reader.read()).endswith(b"hello")
                writer.close()

    run(scenario())


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("::", "[::]:80")])
def test_a_port_is_named_as_people_write_it(host: str, name: str) -> None:
    assert Port(ip_address(host), 80).name == name


def test_a_port_on_an_ipv6_address_is_that_address_alone() -> None:
    with Port(IPv6Address("::1"), 0).open() as door:
        assert door.getsockname()[0] == "::1"
        assert door.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_port_that_is_taken_is_a_condition_until_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = int(other.getsockname()[1])
            async with serving(Port(IPv4Address("127.0.0.1"), port)) as health:
                await asyncio.sleep(0.05)
                (condition,) = health.present()
                assert condition.kind is NOT_SERVED
                assert condition.subject == f"127.0.0.1:{port}"
                assert "Address already in use" in condition.text
                other.close()
                assert (await ask(port)).endswith(b"hello")
                assert not health.present()

    run(scenario())


def test_what_a_dead_agent_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    place = ControlSocket(path)
    with place.open():
        assert place.stands()
    place.close()


def test_the_socket_of_a_living_agent_is_left_alone_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    path = tmp_path / "flanneld.sock"

    async def scenario() -> None:
        other = ControlSocket(path)
        with other.open():
            with pytest.raises(Taken):
                ControlSocket(path).open()
            async with serving(ControlSocket(path)) as health:
                await asyncio.sleep(0.05)
                assert "another agent" in health.present()[0].text
                assert other.stands()
                other.close()
                assert (await ask(str(path))).endswith(b"hello")
                assert not health.present()

    run(scenario())


def test_a_living_agent_with_a_full_queue_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    with (
        socket.socket(socket.AF_UNIX) as busy,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
    ):
        busy.bind(str(path))
        busy.listen(0)
        one.connect(str(path))
        two.setblocking(False)
        with pytest.raises(BlockingIOError):
            two.connect(str(path))
        with pytest.raises(Taken):
            ControlSocket(path).open()


def test_a_file_that_is_no_socket_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="is no socket"):
        ControlSocket(path).open()
    assert path.read_text() == "precious"


def test_a_control_socket_that_is_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    path = tmp_path / "flanneld.sock"

    async def scenario() -> None:
        async with serving(ControlSocket(path)):
            await ask(str(path))
            path.unlink()
            assert (await ask(str(path))).endswith(b"hello")

    run(scenario())


def test_the_socket_of_who_came_after_us_is_not_removed_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    place, other = ControlSocket(path), ControlSocket(path)
    with place.open():
        path.unlink()
        with other.open():
            assert not place.stands()
            place.close()
            assert other.stands()
    other.close()


def test_nobody_is_kept_out_by_those_who_hold_connections_open(tmp_path: Path) -> None:
    path = str(tmp_path / "flanneld.sock")

    async def scenario() -> None:
        async with serving(ControlSocket(Path(path))):
            await ask(path)
            before = Usage.now().open_fds
            crowd = [socket.socket(socket.AF_UNIX) for _ in range(BACKLOG)]
            for each in crowd:
                each.connect(path)
            assert (await ask(path)).endswith(b"hello")
            # Those who had been there longest had to go.
            assert Usage.now().open_fds - before <= len(crowd) + MOST
            crowd[0].settimeout(5)
            assert crowd[0].recv(1) == b""
            for each in crowd:
                each.close()

    run(scenario())


def test_the_end_of_the_server_does_not_wait_for_visitors(tmp_path: Path) -> None:
    path = str(tmp_path / "flanneld.sock")

    async def scenario() -> None:
        async with serving(ControlSocket(Path(path))):
            await ask(path)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"hello")
        assert await reader.read() == b""
        writer.close()

    run(scenario(), limit=5)
