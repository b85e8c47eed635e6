from __future__ import annotations

import asyncio
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from pyflannel.doctor.facts import Network, Record
from pyflannel.doctor.records import ask, configured, network, store_time
from pyflannel.footing import understand
from pyflannel.lease.model import Snapshot
from pyflannel.settings import EtcdApi, Settings
from pyflannel.store import cache
from pyflannel.store.lastknown import LastKnown
from pyflannel.store.local import LocalStore

VXLAN = '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","Port":4789,"DirectRouting":true}}'
OTHER = '{"Network":"10.3.0.0/16","Backend":{"Type":"host-gw"}}'
NOWHERE = ("http://127.0.0.1:1",)


def test_a_local_store_tells_its_configuration(tmp_path: Path) -> None:
    settings = Settings(store=f"local:{tmp_path}/store.db")

    async def scenario() -> None:
        store = LocalStore(tmp_path / "store.db", settings.etcd_prefix)
        await store.write_config(VXLAN)
        await store.close()
        told = await ask(settings)
        assert told.records["local"].text == VXLAN
        assert told.failures == ()
        assert await store_time(settings) is None

    asyncio.run(scenario())


def test_asking_makes_no_file(tmp_path: Path) -> None:
    told = asyncio.run(ask(Settings(store=f"local:{tmp_path}/store.db")))
    assert told.records == {}
    assert "no file" in told.failures[0]
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_named_once() -> None:
    settings = Settings(etcd_endpoints=NOWHERE)
    told = asyncio.run(ask(settings))
    assert told.records == {}
    (failure,) = told.failures
    assert "etcd v3" in failure
    assert "etcd v2" in failure
    assert asyncio.run(store_time(settings)) is None


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (VXLAN, Network(IPv4Network("10.2.0.0/16"), None, "vxlan", ("flannel.1",), 4789, True)),
        (OTHER, Network(IPv4Network("10.3.0.0/16"), None, "host-gw", (), None, False)),
        (
            '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"wireguard"}}',
            Network(
                IPv4Network("10.2.0.0/16"),
                IPv6Network("fd00::/48"),
                "wireguard",
                ("flannel-wg", "flannel-wg-v6"),
                51820,
                False,
                51821,
            ),
        ),
        (
            '{"Network":"10.2.0.0/16","Backend":{"Type":"udp"}}',
            Network(IPv4Network("10.2.0.0/16"), None, "udp", ("flannel0",), 8285, False),
        ),
    ],
)
def test_a_configuration_says_which_devices_and_port_there_are(text: str, made: Network) -> None:
    assert network(understand("here", text)) == made


@pytest.mark.parametrize(
    ("api", "records", "where"),
    [
        (EtcdApi.AUTO, {"3": Record(VXLAN, "three"), "2": Record(OTHER, "two")}, "three"),
        (EtcdApi.AUTO, {"3": Record(None, "three"), "2": Record(OTHER, "two")}, "two"),
        (EtcdApi.V2, {"3": Record(VXLAN, "three"), "2": Record(OTHER, "two")}, "two"),
        (EtcdApi.V2, {"3": Record(VXLAN, "three")}, None),
        (EtcdApi.AUTO, {"3": Record("{", "three")}, None),
    ],
)
def test_the_configuration_is_the_one_the_agent_would_take(
    tmp_path: Path, api: EtcdApi, records: dict[str, Record], where: str | None
) -> None:
    found = configured(Settings(etcd_api=api, state_dir=str(tmp_path)), records)
    assert (None if found is None else found.where) == where


def test_without_a_store_it_is_the_one_last_known(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    file = cache.path(tmp_path, settings.etcd_prefix)
    cache.save(file, LastKnown(settings.etcd_prefix, "etcd v3", None, Snapshot(1, config=OTHER)))
    found = configured(settings, {})
    assert found is not None
    assert (found.where, found.text) == (str(file), OTHER)
