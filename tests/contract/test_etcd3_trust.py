"""Who is who, with a real etcd: certificates and passwords that are wrong, run out, or are replaced while we run.

Each trouble is one clear line, without a secret in it, and over as soon as it is mended.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import Credentials, Tls
from pyflannel.store.etcd3 import Etcd3Store
from tests.support.etcd import Etcd
from tests.support.etcd_stores import DAY, HOST2, ONE, exhausted, until_event, used, watched
from tests.support.loops import run
from tests.support.pki import CLIENT, ELSEWHERE, EXPIRED, SERVER, issue, make_pki
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd", "openssl")

PASSWORD = "so-secret&strange:ü"
ROOT = f"--user=root:{PASSWORD}"


async def trouble(store: Etcd3Store) -> str:
    """What a list fails with."""
    with pytest.raises(Unavailable) as caught:
        await store.leases()
    text = str(caught.value)
    assert text.isprintable()
    assert PASSWORD not in text
    return text


async def works(store: Etcd3Store) -> None:
    """All that a host does with its lease."""
    start = (await store.leases()).revision
    lease = await store.renew(await store.create(ONE, HOST2, DAY), DAY)
    async with watched(store, start) as watch:
        assert [changes.events async for changes in until_event(watch)][-1] == (lease,)
    await store.release(await store.set_ttl(await store.set_ttl(lease, None), DAY))


# Certificates


def files(pki: Path) -> Tls:
    return Tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    return make_pki(tmp_path / "pki")


@pytest.fixture
def etcd(tmp_path: Path, pki: Path) -> Iterator[Etcd]:
    """An etcd that wants a certificate."""
    with Etcd(tmp_path, client_tls=pki) as etcd:
        yield etcd


def test_authority_alone_is_enough_where_no_certificate_is_wanted(tmp_path: Path, pki: Path) -> None:
    with Etcd(tmp_path, client_tls=pki, anybody=True) as etcd:

        async def story() -> None:
            async with used(Etcd3Store([etcd.url], PREFIX, tls=Tls(str(pki / "ca.pem")))) as store:
                await works(store)

        run(story())


def test_authority_certificate_and_key_are_enough_where_one_is_wanted(etcd: Etcd, pki: Path) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
            await works(store)

    run(story())


def test_missing_certificate_is_guessed_when_etcd_hangs_up(etcd: Etcd, pki: Path) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=Tls(str(pki / "ca.pem")))) as store:
            assert "we showed no certificate, if it wants one" in await trouble(store)

    run(story())


def test_expired_certificate_of_ours_is_named_until_it_is_renewed(etcd: Etcd, pki: Path) -> None:
    issue(pki, "client", CLIENT, EXPIRED)

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
            said = await trouble(store)
            assert said.endswith(f"our own certificate {pki / 'client.pem'} is no good: certificate has expired")
            issue(pki, "client", CLIENT)
            await works(store)

    run(story())


@pytest.mark.parametrize(
    ("extensions", "days", "why"),
    [
        (SERVER, EXPIRED, "its certificate is not to be trusted: certificate has expired"),
        (ELSEWHERE, 1, "its certificate is not to be trusted: .*not valid for '127.0.0.1'"),
    ],
    ids=["expired", "another name"],
)
def test_certificate_of_the_server_is_refused_until_it_is_renewed(
    tmp_path: Path, pki: Path, extensions: str, days: int, why: str
) -> None:
    with Etcd(tmp_path, client_tls=pki) as etcd:
        issue(pki, "server", extensions, days)

        async def story() -> None:
            async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
                assert re.search(why, await trouble(store))
                issue(pki, "server", SERVER)
                await works(store)

        run(story())


def test_server_of_an_unknown_authority_is_refused_until_we_are_given_that_authority(
    tmp_path: Path, etcd: Etcd, pki: Path
) -> None:
    other = make_pki(tmp_path / "other")
    good = (pki / "ca.pem").read_bytes()
    (pki / "ca.pem").write_bytes((other / "ca.pem").read_bytes())

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
            assert "its certificate is not to be trusted" in await trouble(store)
            (pki / "ca.pem").write_bytes(good)
            await works(store)

    run(story())


def test_certificate_of_an_unknown_authority_is_refused_until_it_is_replaced(
    tmp_path: Path, etcd: Etcd, pki: Path
) -> None:
    other = make_pki(tmp_path / "other")
    for name in ("client.pem", "client.key"):
        (pki / name).write_bytes((other / name).read_bytes())

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
            assert "connection lost" in await trouble(store)
            issue(pki, "client", CLIENT)
            await works(store)

    run(story())


def test_everybody_gets_a_new_authority_and_a_running_client_follows(etcd: Etcd, pki: Path) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX, tls=files(pki))) as store:
            made = await store.create(ONE, HOST2, DAY)
            make_pki(pki)
            assert (await store.leases()).leases == (made,)  # the connection that stands goes on
            etcd.kill()
            etcd.start()
            assert (await store.leases()).leases == (made,)

    run(story())


def test_plain_call_to_a_server_that_wants_tls_says_so(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url.replace("https", "http")], PREFIX)) as store:
            assert (await trouble(store)).endswith("if it wants TLS, its address begins with https")

    run(story())


# Passwords


def authentications(etcd: Etcd) -> int:
    """How often anybody has shown etcd his password."""
    name = 'grpc_server_started_total{grpc_method="Authenticate",grpc_service="etcdserverpb.Auth",grpc_type="unary"}'
    (line,) = [line for line in etcd.http("GET", "/metrics").decode().splitlines() if line.startswith(name)]
    return int(line.split()[-1])


def switch_on(etcd: Etcd) -> None:
    """Nobody but root may do anything, from now on."""
    etcd.ctl("user", "add", f"root:{PASSWORD}")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Etcd]:
    """An etcd that wants a password, and a new one for its tokens every second or two."""
    with Etcd(tmp_path, arguments=("--auth-token-ttl=1",)) as etcd:
        switch_on(etcd)
        yield etcd


def as_user(etcd: Etcd, user: str = "root", password: str = PASSWORD) -> Etcd3Store:
    return Etcd3Store([etcd.url], PREFIX, credentials=Credentials(user, password))


def test_token_that_ran_out_is_replaced_and_no_other(guarded: Etcd) -> None:
    async def story() -> None:
        async with used(as_user(guarded)) as store:
            await works(store)
            assert authentications(guarded) == 1
            while authentications(guarded) == 1:
                await asyncio.sleep(1.5)  # etcd forgets tokens nobody used for so long
                await works(store)
            assert authentications(guarded) == 2

    run(story())


def test_watch_outlives_its_token(guarded: Etcd) -> None:
    async def story() -> None:
        async with used(as_user(guarded)) as store, used(as_user(guarded)) as other:
            start = (await store.leases()).revision
            async with watched(store, start) as watch:
                await anext(watch)
                await asyncio.sleep(3)  # twice the life of a token
                made = await other.create(ONE, HOST2, DAY)
                assert [changes.events async for changes in until_event(watch)][-1] == (made,)

    run(story())


def test_wrong_password_is_said_until_it_is_the_right_one(guarded: Etcd) -> None:
    async def story() -> None:
        async with used(as_user(guarded, password="wr0ng")) as store:
            said = await trouble(store)
            assert said == f"etcd v3 at {guarded.url}: etcdserver: authentication failed, invalid user ID or password"
            guarded.ctl(ROOT, "user", "passwd", "root", "--interactive=false", stdin="wr0ng")
            await works(store)

    run(story())


def test_password_changed_while_we_run_is_said_until_it_is_the_old_one_again(guarded: Etcd) -> None:
    async def story() -> None:
        async with used(as_user(guarded)) as store:
            await works(store)
            guarded.ctl(ROOT, "user", "passwd", "root", "--interactive=false", stdin="another")
            assert "authentication failed" in await trouble(store)
            guarded.ctl("--user=root:another", "user", "passwd", "root", "--interactive=false", stdin=PASSWORD)
            await works(store)

    run(story())


def test_authentication_switched_on_while_we_run_is_met(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:

        async def story() -> None:
            async with used(as_user(etcd)) as store:
                await works(store)
                switch_on(etcd)
                await works(store)
                etcd.ctl(ROOT, "auth", "disable")
                await works(store)

        run(story())


def test_missing_permission_is_said_until_it_is_granted(guarded: Etcd) -> None:
    guarded.ctl(ROOT, "user", "add", f"flannel:{PASSWORD}")
    guarded.ctl(ROOT, "role", "add", "network")
    guarded.ctl(ROOT, "user", "grant-role", "flannel", "network")

    async def story() -> None:
        async with used(as_user(guarded, "flannel")) as store:
            assert await trouble(store) == f"etcd v3 at {guarded.url}: etcdserver: permission denied"
            guarded.ctl(ROOT, "role", "grant-permission", "--prefix", "network", "readwrite", f"{PREFIX}/")
            await works(store)

    run(story())


def test_watch_that_is_not_permitted_is_unavailable(guarded: Etcd) -> None:
    guarded.ctl(ROOT, "user", "add", f"flannel:{PASSWORD}")
    guarded.ctl(ROOT, "role", "add", "network")
    guarded.ctl(ROOT, "user", "grant-role", "flannel", "network")
    guarded.ctl(ROOT, "role", "grant-permission", "network", "read", f"{PREFIX}/config")

    async def story() -> None:
        async with used(as_user(guarded, "flannel")) as store:
            assert (await store.network_config()).text is None
            async with watched(store, 1) as watch:
                with pytest.raises(Unavailable, match=r"(?i)permission ?denied"):
                    await exhausted(watch)

    run(story())
