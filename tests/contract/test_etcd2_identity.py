"""Who is who between the v2 API's client and a real etcd: certificates, passwords, permissions, as they are by now."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import Credentials, Tls
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.etcd import Etcd
from tests.support.etcd2_stage import patient
from tests.support.etcd_stores import DAY, HOST2, KEY, ONE, TWO, used
from tests.support.followed import following
from tests.support.loops import run
from tests.support.pki import CLIENT, EXPIRED, SERVER, issue, make_pki
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path, v2=True) as etcd:
        yield etcd


@pytest.mark.needs("openssl")
def test_certificates_are_read_anew_when_they_change(tmp_path: Path) -> None:
    pki, other = make_pki(tmp_path / "pki"), make_pki(tmp_path / "other")
    tls = Tls(str(pki / "ours.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    shutil.copy(pki / "ca.pem", pki / "ours.pem")

    async def told(store: Etcd2Store) -> str:
        """What a client is told once it has to connect anew."""
        await store.close()
        with pytest.raises(Unavailable) as caught:
            await store.leases()
        assert str(caught.value).isprintable()
        return str(caught.value).removeprefix(f"{store.name}: ")

    async def story(etcd: Etcd) -> None:
        async with (
            used(patient(etcd.url, tls=tls)) as store,
            used(patient(etcd.url, tls=tls)) as followed,
            following(followed) as seen,
        ):
            await store.create(ONE, HOST2, DAY)
            await seen.settled(store)

            issue(pki, "client", CLIENT, EXPIRED)
            assert f"our own certificate {tls.certfile} is no good: certificate has expired" in await told(store)
            await seen.until(lambda: bool(seen.outages))
            issue(pki, "client", CLIENT)
            await store.create(TWO, HOST2, DAY)

            issue(pki, "server", SERVER, EXPIRED)
            assert await told(store) == "its certificate is not to be trusted: certificate has expired"
            # Now etcd gets a certificate of another authority, and a moment later we come to believe that one.
            for name in ("server.pem", "server.key"):
                shutil.copy(other / name, pki / name)
            assert (await told(store)).startswith("its certificate is not to be trusted: ")
            shutil.copy(other / "ca.pem", pki / "ours.pem")

            await seen.settled(store)
            assert (set(seen.table.leases), seen.gone) == ({ONE, TWO}, set())

    with Etcd(tmp_path, v2=True, client_tls=pki) as etcd:
        run(story(etcd))


@pytest.mark.needs("openssl")
def test_client_without_a_certificate_is_told_so(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)

    async def story(etcd: Etcd) -> None:
        async with used(patient(etcd.url, tls=Tls(str(pki / "ca.pem")))) as store:
            with pytest.raises(Unavailable, match=r"certificate required|we showed no certificate"):
                await store.leases()

    with Etcd(tmp_path, v2=True, client_tls=pki) as etcd:
        run(story(etcd))


class Administrator:
    """Root of an etcd whose v2 API wants passwords; nobody may do anything without one."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._headers = {"content-type": "application/json"}
        self.put("users/root", {"user": "root", "password": "r00t"})
        self.put("enable", {})
        self._headers["authorization"] = "Basic " + b64encode(b"root:r00t").decode()
        self.put("roles/guest", {"role": "guest", "revoke": {"kv": {"read": ["/*"], "write": ["/*"]}}})

    def put(self, target: str, document: dict[str, object]) -> None:
        answer = self._etcd.http("PUT", f"/v2/auth/{target}", json.dumps(document).encode(), self._headers)
        assert b"message" not in answer, answer


def permission(*kinds: str) -> dict[str, object]:
    return {"kv": {kind: [f"{PREFIX}/*"] for kind in kinds}}


def test_password_and_permissions_are_taken_as_they_are_by_now(etcd: Etcd) -> None:
    root = Administrator(etcd)
    root.put("roles/flannel", {"role": "flannel", "permissions": permission("read")})
    root.put("users/flannel", {"user": "flannel", "password": "0ld", "roles": ["flannel"]})
    credentials = Credentials("flannel", "s3cret ü:&")
    refused = "The request requires user authentication: Insufficient credentials"
    why = "user flannel: wrong password or no permission"

    async def story() -> None:
        async with used(patient(etcd.url, credentials=credentials)) as store, following(store) as seen:
            await seen.until(lambda: bool(seen.outages))
            assert seen.outages == [f"{store.name}: {refused} (to GET {PREFIX}/; {why})"]
            root.put("users/flannel", {"user": "flannel", "password": credentials.password})
            await seen.until(lambda: seen.snapshots == 1)
            with pytest.raises(Unavailable) as caught:
                await store.create(ONE, HOST2, DAY)
            assert str(caught.value) == f"{store.name}: {refused} (to PUT {KEY}; {why})"
            root.put("roles/flannel", {"role": "flannel", "grant": permission("write")})
            made = await store.create(ONE, HOST2, DAY)
            await seen.until(lambda: ONE in seen.table.leases)

            root.put("users/flannel", {"user": "flannel", "password": "n3w"})
            await seen.until(lambda: len(seen.outages) > 1)
            with pytest.raises(Unavailable):
                await store.renew(made, DAY)
            root.put("users/flannel", {"user": "flannel", "password": credentials.password})
            await store.renew(made, DAY)
            await seen.settled(store)
            assert seen.gone == set()
            assert not any(credentials.password in reason for reason in seen.outages)

    run(story())


def test_client_without_a_name_is_told_so(etcd: Etcd) -> None:
    Administrator(etcd)

    async def story() -> None:
        async with used(patient(etcd.url)) as store:
            with pytest.raises(Unavailable, match=rf"\(to GET {PREFIX}/; no user name is set\)$"):
                await store.leases()

    run(story())
