"""Which stores the settings allow, and when they are opened."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from pyflannel.settings import EtcdApi, Settings
from pyflannel.store.candidates import Candidates, candidates
from pyflannel.store.metered import Meter, Metered
from tests.support.memory_store import MemoryData, MemoryStore


def names(settings: Settings) -> list[str]:
    async def scenario() -> list[str]:
        stores = candidates(settings)
        found = [store.name for store in stores]
        await stores.close()
        return found

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("api", "versions"), [(EtcdApi.AUTO, ["v3", "v2"]), (EtcdApi.V2, ["v2"]), (EtcdApi.V3, ["v3"])]
)
def test_etcd_is_asked_by_the_allowed_apis_the_newer_first(api: EtcdApi, versions: list[str]) -> None:
    found = names(Settings(etcd_api=api, etcd_endpoints=("http://127.0.0.1:2379",)))
    assert [version for name, version in zip(found, versions, strict=True) if f"etcd {version}" in name] == versions


def test_a_local_store_is_the_only_candidate() -> None:
    (name,) = names(Settings(store="local:/var/lib/flannel/leases.db"))
    assert "/var/lib/flannel/leases.db" in name


def test_a_store_is_opened_when_it_is_reached_and_only_once() -> None:
    opened: list[str] = []

    def opener(name: str) -> MemoryStore:
        opened.append(name)
        return MemoryStore(MemoryData())

    stores = Candidates({"one": lambda: opener("first"), "other": lambda: opener("second")})
    first = next(iter(stores))
    assert opened == ["first"]
    assert len(list(stores)) == 2
    assert next(iter(stores)) is first
    assert opened == ["first", "second"]


def test_a_store_is_found_by_its_kind_without_opening_another() -> None:
    stores = Candidates({"one": lambda: pytest.fail("not asked for"), "other": lambda: MemoryStore(MemoryData())})
    found = stores.of_kind("other")
    assert found is not None
    assert stores.of_kind("other") is found
    assert stores.kind(found) == "other"
    assert stores.of_kind("third") is None


def test_what_is_handed_out_for_a_store_is_known_by_its_kind() -> None:
    data, meter = MemoryData(), Meter()
    stores = Candidates({"one": lambda: MemoryStore(data)}, lambda store: Metered(store, meter))
    (found,) = stores
    assert isinstance(found, Metered)
    assert stores.kind(found) == "one"
    assert stores.of_kind("one") is found


def test_a_client_nobody_uses_is_not_imported() -> None:
    script = (
        "import sys; from pyflannel.settings import Settings; from pyflannel.store.candidates import candidates; "
        "list(candidates(Settings(store='local:/nowhere/leases.db'))); "
        "sys.exit('grpclib' in sys.modules or 'h11' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_name_holds_the_password() -> None:
    settings = Settings(etcd_username="root", etcd_password="hunter2", etcd_endpoints=("http://127.0.0.1:2379",))
    assert not any("hunter2" in name for name in names(settings))
