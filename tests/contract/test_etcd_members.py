"""What only a real etcd can tell of its members: some fail, want certificates or passwords, or lack an API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeAlias

import pytest

from pyflannel.lease.model import Attrs, Subnet
from pyflannel.store.api import Store, Unavailable
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.endpoints import Credentials, Tls
from pyflannel.store.etcd2 import Etcd2Store
from pyflannel.store.etcd3 import Etcd3Store
from tests.support.etcd import Etcd
from tests.support.etcd_stores import DAY, HOST2, NOBODY, ONE, TWO, exhausted, until_event, used, watched
from tests.support.loops import run
from tests.support.pki import make_pki
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd")

Open: TypeAlias = Callable[..., Etcd3Store | Etcd2Store]
both_apis = pytest.mark.parametrize("open_store", [Etcd3Store, Etcd2Store])


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path, v2=True) as etcd:
        yield etcd


# Members that fail


@both_apis
def test_member_that_is_down_is_passed_over(etcd: Etcd, open_store: Open) -> None:
    async def story() -> None:
        async with used(open_store([NOBODY, etcd.url], PREFIX)) as store:
            made = await store.create(ONE, HOST2, DAY)
            async with watched(store, made.modified - 1) as watch:
                heard = [changes.events async for changes in until_event(watch)]
            assert heard[-1] == (made,)

    run(story())


@both_apis
def test_member_that_hangs_is_passed_over(tmp_path: Path, etcd: Etcd, open_store: Open) -> None:
    (tmp_path / "hanging").mkdir()
    with Etcd(tmp_path / "hanging", v2=True) as hanging:

        async def story() -> None:
            async with used(open_store([hanging.url, etcd.url], PREFIX)) as store:
                assert (await store.network_config()).text is None
                hanging.freeze()
                assert etcd.url in (await store.network_config()).where

        run(story())


@both_apis
def test_watch_notices_a_member_that_hangs(etcd: Etcd, open_store: Open) -> None:
    async def story() -> None:
        async with used(open_store([etcd.url], PREFIX, quiet_s=0.05)) as store, watched(store, 1) as watch:
            await anext(watch)
            etcd.freeze()
            with pytest.raises(Unavailable):
                await exhausted(watch)

    run(story())


@both_apis
def test_refused_connection_is_told_in_plain_words(open_store: Open) -> None:
    async def story() -> None:
        async with used(open_store([NOBODY], PREFIX)) as store:
            api = store.name.split(" at ")[0]
            with pytest.raises(Unavailable) as caught:
                await store.leases()
            assert str(caught.value) == f"{api} at {NOBODY}: connection refused"

    run(story())


def test_full_etcd_is_unavailable_in_its_own_words(tmp_path: Path) -> None:
    with Etcd(tmp_path, arguments=("--quota-backend-bytes=65536",)) as etcd:

        async def story() -> None:
            async with used(Etcd3Store([etcd.url], PREFIX)) as store:
                attrs = Attrs(None, None, "extension", json.dumps("x" * 10_000))

                async def fill() -> None:
                    # etcd counts what it has committed, every 100 ms; how many records that takes is not ours to say.
                    for subnet in IPv4Network("10.0.0.0/8").subnets(new_prefix=24):
                        await store.create(Subnet(subnet), attrs, DAY)

                with pytest.raises(Unavailable, match="database space exceeded"):
                    await fill()

        run(story())


# Who is who


@contextmanager
def guarded(directory: Path, client_tls: Path | None = None) -> Iterator[Etcd]:
    """An etcd with certificates for everybody."""
    with Etcd(directory, v2=True, client_tls=client_tls) as etcd:
        yield etcd


@pytest.mark.needs("openssl")
@both_apis
def test_certificates_prove_both_sides(tmp_path: Path, open_store: Open) -> None:
    pki = make_pki(tmp_path)
    tls = Tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    with guarded(tmp_path, pki) as etcd:

        async def story() -> None:
            async with used(open_store([etcd.url], PREFIX, tls=tls)) as store:
                made = await store.create(ONE, HOST2, DAY)
                async with watched(store, made.modified - 1) as watch:
                    heard = [changes.events async for changes in until_event(watch)]
                assert heard[-1] == (made,)

        run(story())


@pytest.mark.needs("openssl")
def test_certificate_and_key_mean_tls_whatever_the_url_says(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    tls = Tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    with guarded(tmp_path, pki) as etcd:

        async def story() -> None:
            async with used(Etcd3Store([etcd.url.replace("https", "http")], PREFIX, tls=tls)) as store:
                assert (await store.leases()).leases == ()

        run(story())


@pytest.mark.needs("openssl")
@both_apis
def test_server_of_an_unknown_authority_is_not_trusted(tmp_path: Path, open_store: Open) -> None:
    pki = make_pki(tmp_path)
    with guarded(tmp_path, pki) as etcd:

        async def story() -> None:
            async with used(open_store([etcd.url], PREFIX)) as store:
                with pytest.raises(Unavailable, match="its certificate is not to be trusted"):
                    await store.leases()

        run(story())


def with_password(etcd: Etcd) -> None:
    """Switch authentication on: only root may do anything."""
    etcd.ctl("user", "add", "root:so secret & strange:ü")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")


PASSWORD = "so secret & strange:ü"


def test_password_opens_and_a_restart_of_etcd_only_costs_a_new_token(etcd: Etcd) -> None:
    with_password(etcd)

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, credentials=Credentials("root", PASSWORD))) as store:
            made = await store.create(ONE, HOST2, DAY)
            etcd.kill()
            etcd.start()
            assert (await store.renew(made, DAY)) == made
            async with watched(store, made.modified - 1) as watch:
                heard = [changes.events async for changes in until_event(watch)]
            assert heard[-1] == (made,)

    run(story())


@pytest.mark.parametrize("credentials", [None, Credentials("root", "wr0ng"), Credentials("nobody", "wr0ng")])
def test_wrong_password_is_unavailable_and_not_repeated_in_the_message(
    etcd: Etcd, credentials: Credentials | None
) -> None:
    with_password(etcd)

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, credentials=credentials)) as store:
            with pytest.raises(Unavailable) as caught:
                await store.leases()
            assert etcd.url in str(caught.value)
            assert "wr0ng" not in f"{caught.value} {store.name} {credentials!r}"

    run(story())


def test_password_nobody_asked_for_does_no_harm(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, credentials=Credentials("root", PASSWORD))) as store:
            assert (await store.leases()).leases == ()

    run(story())


def test_v2_password_opens_and_a_wrong_one_is_unavailable(etcd: Etcd) -> None:
    root = {"content-type": "application/json"}
    etcd.http("PUT", "/v2/auth/users/root", json.dumps({"user": "root", "password": PASSWORD}).encode(), root)
    etcd.http("PUT", "/v2/auth/enable", b"", root)
    credentials = Credentials("root", PASSWORD)

    async def story() -> None:
        async with used(Etcd2Store([etcd.url], PREFIX, credentials=credentials)) as store:
            await with_guest_shut_out(etcd, store)

    run(story())


async def with_guest_shut_out(etcd: Etcd, store: Store) -> None:
    assert (await store.create(ONE, HOST2, DAY)).attrs == HOST2
    async with used(Etcd2Store([etcd.url], PREFIX, credentials=Credentials("root", "wr0ng"))) as stranger:
        with pytest.raises(Unavailable) as caught:
            await stranger.create(TWO, HOST2, DAY)
        assert "Insufficient credentials" in str(caught.value)
        assert "wr0ng" not in str(caught.value)


# Which API


def both_stores(etcd: Etcd) -> Sequence[Etcd3Store | Etcd2Store]:
    return Etcd3Store([etcd.url], PREFIX), Etcd2Store([etcd.url], PREFIX)


@pytest.mark.parametrize("api", ["etcd v3", "etcd v2"])
def test_api_that_holds_the_config_is_chosen(etcd: Etcd, api: str) -> None:
    if api == "etcd v3":
        etcd.ctl("put", f"{PREFIX}/config", "{}")
    else:
        etcd.v2("PUT", f"{PREFIX}/config", {"value": "{}"})

    async def story() -> None:
        three, two = both_stores(etcd)
        async with used(three), used(two):
            found = await find_config([three, two])
            assert not isinstance(found, Missing)
            assert found[0].name.startswith(api)
            assert api in found[1].where

    run(story())


@pytest.mark.parametrize("v2", [True, False])
def test_missing_config_is_explained_for_each_api(tmp_path: Path, v2: bool) -> None:
    with Etcd(tmp_path, v2=v2) as etcd:

        async def story() -> None:
            three, two = both_stores(etcd)
            async with used(three), used(two):
                missing = await find_config([three, two])
            second = (
                f"{PREFIX}/config in etcd v2 at {etcd.url}: no such key"
                if v2
                else f"etcd v2 at {etcd.url}: what answers there has no etcd v2 API (404 page not found)"
            )
            assert str(missing) == (f"{PREFIX}/config in etcd v3 at {etcd.url}: no such key; {second}")

        run(story())


def test_nobody_there_is_no_missing_config() -> None:
    async def story() -> None:
        three, two = Etcd3Store([NOBODY], PREFIX), Etcd2Store([NOBODY], PREFIX)
        with pytest.raises(Unavailable, match=r"etcd v3 at .*: connection refused; etcd v2 at .*: connection refused"):
            await find_config([three, two])

    run(story())
