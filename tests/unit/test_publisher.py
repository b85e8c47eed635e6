"""Handing out subnet.env, through whatever the disk does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyflannel.network import Network
from pyflannel.outputs import SubnetEnv, render_subnet_env
from pyflannel.publisher import Publisher, subnet_env
from pyflannel.settings import Settings
from tests.support.builders import backend, view
from tests.support.loops import run_jumping

ENV = SubnetEnv(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"), None, None, 1450, False)


def test_the_file_is_written_and_written_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run" / "subnet.env"

    async def scenario() -> None:
        publisher = Publisher(path, ENV)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(publisher.run(), name="outputs")
            await asyncio.sleep(1)
            assert "FLANNEL_MTU=1450\n" in path.read_text()
            publisher.update(replace(ENV, mtu=1400))
            await asyncio.sleep(1)
            assert "FLANNEL_MTU=1400\n" in path.read_text()
            running.cancel()

    with caplog.at_level(logging.INFO, "pyflannel"):
        run_jumping(scenario())
    assert "FLANNEL_MTU was 1450 and is 1400: restart Docker" in caplog.text
    assert caplog.text.count("Running backend.") == 1


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("FLANNEL_SUBNET=10.2.8.1/24\nFLANNEL_MTU=1450\n", ["FLANNEL_SUBNET was 10.2.8.1/24 and is 10.2.71.1/24: "]),
        (
            "FLANNEL_SUBNET=10.2.71.1/24\nFLANNEL_IPV6_SUBNET=fd00::1/64\n",
            ["FLANNEL_IPV6_SUBNET was fd00::1/64 and is"],
        ),
        ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.2.71.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", []),
        ("no subnet file\n", []),
    ],
)
def test_who_started_docker_with_another_file_is_told(
    before: str, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "subnet.env"
    path.write_text(before)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(Publisher(path, ENV).run(), name="outputs")
            await asyncio.sleep(1)
            running.cancel()

    run_jumping(scenario())
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.startswith(text) for line, text in zip(lines, said, strict=True)] == [True] * len(said)


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"

    async def scenario() -> None:
        publisher = Publisher(path, ENV)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(publisher.run(), name="outputs")
            await asyncio.sleep(1)
            before = path.stat().st_ino
            publisher.update(replace(ENV))
            await asyncio.sleep(1)
            assert path.stat().st_ino == before
            running.cancel()

    run_jumping(scenario())


def test_a_disk_that_refuses_is_tried_until_it_gives_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "run"
    blocked.write_text("a file where a directory should be")

    async def scenario() -> None:
        publisher = Publisher(blocked / "subnet.env", ENV)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(publisher.run(), name="outputs")
            await asyncio.sleep(60)
            blocked.unlink()
            await asyncio.sleep(60)
            running.cancel()

    run_jumping(scenario())
    assert (blocked / "subnet.env").exists()
    assert caplog.text.count("could not write the subnet file") == 1


def test_containers_are_told_of_the_network_in_full() -> None:
    network = Network(backend(), view())
    assert render_subnet_env(subnet_env(Settings(ip_masq=True), network)).splitlines() == [
        *("FLANNEL_NETWORK=10.2.0.0/16", "FLANNEL_SUBNET=10.2.71.1/24", "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=true")
    ]
