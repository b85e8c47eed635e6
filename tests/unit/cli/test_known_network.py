"""The network as a command finds it out: from the store, or, where that does not answer, from what was saved of it."""

from __future__ import annotations

import asyncio
import sqlite3
from binascii import crc32
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pyflannel.cli.known_network import NotKnown, known_network
from pyflannel.lease.model import Lease, Snapshot
from pyflannel.linux.netns import inside
from pyflannel.network import Network
from pyflannel.settings import Settings
from pyflannel.store import cache
from pyflannel.store.lastknown import LastKnown, last_line, lines
from pyflannel.store.local import LocalStore
from tests.support.builders import vxlan_lease
from tests.support.namespaces import Namespace, veth

pytestmark = pytest.mark.needs("root", "netns", "veth")

CONFIG = '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}'
OURS = vxlan_lease("10.2.71.0/24", "172.16.41.131")
THEIRS = vxlan_lease()


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    with Namespace("known") as here, Namespace("far") as far:
        veth(here, "ens33", far, "ens33")
        here.run("ip address add 172.16.41.131/24 dev ens33")
        yield here


def settings(home: Path, store: str | None = None) -> Settings:
    where = f"local:{home}/store.db" if store is None else store
    return Settings(
        store=where,
        etcd_endpoints=("http://127.0.0.1:1",),
        iface=("ens33",),
        subnet_file=str(home / "subnet.env"),
        state_dir=str(home),
    )


def save(home: Path, text: str = CONFIG, kind: str = "etcd v3") -> None:
    """What an agent would have saved."""
    known = LastKnown(Settings().etcd_prefix, kind, OURS, Snapshot(7, (OURS, THEIRS), config=text))
    held = list(lines(known))
    whole = b"".join(held)
    file = cache.path(home, Settings().etcd_prefix)
    file.write_bytes(whole + last_line(7, len(held), crc32(whole)))
    file.chmod(0o600)


def fill(home: Path, *leases: Lease, text: str = CONFIG) -> None:
    async def write() -> None:
        store = LocalStore(home / "store.db", Settings().etcd_prefix)
        await store.write_config(text)
        for lease in leases:
            await store.create(lease.subnet, lease.attrs, 3600)
        await store.close()

    asyncio.run(write())


def found(space: Namespace, asked: Settings) -> tuple[Network, str]:
    return inside(str(space.path), lambda: asyncio.run(known_network(asked)))


def test_the_store_is_asked(space: Namespace, tmp_path: Path) -> None:
    fill(tmp_path, OURS, THEIRS)
    network, note = found(space, settings(tmp_path))
    assert (network.view.own, network.view.underlay.name, note) == (OURS.subnet, "ens33", "")
    assert set(network.table.leases) == {OURS.subnet, THEIRS.subnet}


def test_a_host_without_a_lease_goes_by_its_subnet_file(space: Namespace, tmp_path: Path) -> None:
    fill(tmp_path, THEIRS)
    with pytest.raises(NotKnown, match="this host has no subnet"):
        found(space, settings(tmp_path))
    (tmp_path / "subnet.env").write_text("FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.71.1/24\n")
    network, _ = found(space, settings(tmp_path))
    assert network.view.own == OURS.subnet


def test_without_a_configuration_nothing_is_known(space: Namespace, tmp_path: Path) -> None:
    with pytest.raises(NotKnown, match="no network configuration: no file"):
        found(space, settings(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, '{"Network":"10.2.0.0/16","Backend":{"Type":"nonsense"}}'], ids=["none", "bad"])
def test_a_configuration_that_cannot_be_used_leaves_the_one_in_force(
    space: Namespace, tmp_path: Path, text: str | None
) -> None:
    fill(tmp_path, OURS, THEIRS, text=text or CONFIG)
    if text is None:
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as db:
            db.execute("DELETE FROM config")
    with pytest.raises(NotKnown, match="no such key" if text is None else "nonsense"):
        found(space, settings(tmp_path))
    save(tmp_path, kind="local")
    network, note = found(space, settings(tmp_path))
    assert network.backend.type == "vxlan"
    assert set(network.table.leases) == {OURS.subnet, THEIRS.subnet}
    assert "in force before" in note


def test_a_configuration_to_which_this_host_has_not_gone_over_leaves_the_one_in_force(
    space: Namespace, tmp_path: Path
) -> None:
    fill(tmp_path, OURS, THEIRS, text=CONFIG.replace("vxlan", "host-gw"))
    assert found(space, settings(tmp_path))[0].backend.type == "host-gw"
    save(tmp_path, kind="local")
    network, note = found(space, settings(tmp_path))
    assert network.backend.type == "vxlan"
    assert "this host has not gone over to the network configuration at" in note


def test_a_host_that_has_gone_over_is_known_by_its_record(space: Namespace, tmp_path: Path) -> None:
    save(tmp_path, kind="local")
    gone_over = replace(OURS, attrs=replace(OURS.attrs, backend_type="host-gw", backend_data=None))
    fill(tmp_path, gone_over, THEIRS, text=CONFIG.replace("vxlan", "host-gw"))
    assert found(space, settings(tmp_path))[0].backend.type == "host-gw"


def test_where_the_store_does_not_answer_what_was_saved_of_it_counts(space: Namespace, tmp_path: Path) -> None:
    save(tmp_path)
    network, note = found(space, settings(tmp_path, store=""))
    assert set(network.table.leases) == {OURS.subnet, THEIRS.subnet}
    assert "last known" in note


def test_where_nothing_was_saved_either_nothing_is_known(space: Namespace, tmp_path: Path) -> None:
    with pytest.raises(NotKnown, match="nothing was ever saved"):
        found(space, settings(tmp_path, store=""))
    save(tmp_path)
    cache.path(tmp_path, Settings().etcd_prefix).write_text("nonsense")
    with pytest.raises(NotKnown, match="cannot be used"):
        found(space, settings(tmp_path, store=""))


def test_a_wireguard_network_is_known_without_making_a_key(space: Namespace, tmp_path: Path) -> None:
    fill(tmp_path, OURS, text=CONFIG.replace("vxlan", "wireguard"))
    network, _ = found(space, settings(tmp_path))
    assert network.backend.type == "wireguard"
    assert [file.name for file in tmp_path.iterdir() if "key" in file.name] == []
