"""The v2 API's client, and the feed on top of it, while a proxy or a broken etcd answers wrongly, or not at all.

Each story ends with the followed table equal to what etcd holds, and with nothing said to be gone that was not.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pyflannel.lease.model import Lease, Snapshot
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.store.endpoints import Credentials
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.etcd import Etcd
from tests.support.etcd2_stage import change, hasty, patient, stage
from tests.support.etcd_stores import DAY, HOST2, HOST3, ONE, TWO, used
from tests.support.fake_http import ok
from tests.support.http_proxy import SILENT, UNHEARD, Fault, HttpProxy, Then, instead, with_body
from tests.support.loops import run

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd for all stories; each has a prefix of its own."""
    with Etcd(tmp_path_factory.mktemp("shared"), v2=True) as etcd:
        yield etcd


def chunked(head: bytes, body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    index = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Etcd-Index"))
    answer = head.split(b"\r\n")[0] + b"\r\n" + index + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    return answer + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


PAGE = "<html><body>You have to log in first</body></html>"
INDEX = "X-Etcd-Index: 3"
WRONG = {
    "login page": instead(ok(PAGE)),
    "error page": instead(ok(PAGE, status="502 Bad Gateway")),
    "elsewhere": instead(ok("", "Location: http://192.0.2.1/", status="307 Temporary Redirect")),
    "no such page": instead(ok("404 page not found", status="404 Not Found")),
    "no leader": instead(ok('{"message":"During election"}', status="503 Service Unavailable")),
    "raft": instead(ok('{"errorCode":300,"message":"Raft Internal Error","index":0}', INDEX, status="500 Error")),
    "other JSON": instead(ok("{}", INDEX)),
    "other key": instead(ok('{"action":"get","node":{"key":"/","dir":true}}', INDEX)),
    "deep": instead(ok('{"node":' + "[" * 100_000, INDEX)),
    "no index": Fault(lambda head, body: ok(body.decode(), status=head.decode().split(" ", 1)[1].split("\r\n")[0])),
    "other status": Fault(lambda _head, body: ok(body.decode(), INDEX, status="500 Internal Server Error")),
    "half the JSON": Fault(lambda head, body: with_body(head, body[: len(body) // 2])),
    "cut short": Fault(lambda head, body: with_body(head, body)[: -len(body) // 2], Then.CLOSES),
    "stalled": Fault(lambda head, body: with_body(head, body)[: -len(body) // 2], Then.HANGS),
    "huge": instead(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{", Then.HANGS),
    "not HTTP": instead(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then.CLOSES),
    "hung up": instead(b"", Then.CLOSES),
    "unheard": UNHEARD,
    "silent": SILENT,
}
ODD = {
    "continue": Fault(lambda head, body: b"HTTP/1.1 100 Continue\r\n\r\n" + with_body(head, body)),
    "chunked": Fault(chunked),
    "farewell": Fault(
        lambda head, body: with_body(head, body) + ok("too late", status="408 Request Timeout"), Then.CLOSES
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_spoiled_answers_take_no_lease_away(shared: Etcd, name: str) -> None:
    prefix = f"/spoiled/{name.replace(' ', '-')}"

    async def story() -> None:
        direct = hasty(shared.url, prefix=prefix)
        async with HttpProxy(shared.port) as proxy, stage(direct, hasty(proxy.url, prefix=prefix)) as seen:
            proxy.spoil(WRONG[name], 4)
            await change(direct)
            shared.v2("PUT", f"{prefix}/config", {"value": "{}"})
            await proxy.over()
            await seen.settled(direct)
            assert (seen.gone, seen.config) == ({TWO}, "{}")
            assert all(reason.isprintable() for reason in seen.outages)
            assert seen.outages

    run(story())


@pytest.mark.parametrize("name", WRONG)
def test_spoiled_answer_to_a_list_is_unavailable_in_one_line(shared: Etcd, name: str) -> None:
    async def story() -> None:
        async with HttpProxy(shared.port) as proxy, used(hasty(proxy.url, prefix="/listed")) as store:
            proxy.spoil(WRONG[name])
            with pytest.raises(Unavailable) as caught:
                await store.leases()
            assert str(caught.value).startswith(f"etcd v2 at {proxy.url}: ")
            assert str(caught.value).isprintable()
            assert await store.leases() == Snapshot((await store.leases()).revision)

    run(story())


@pytest.mark.parametrize("name", ODD)
def test_unusual_answers_are_understood(shared: Etcd, name: str) -> None:
    async def story() -> None:
        async with HttpProxy(shared.port) as proxy, used(hasty(proxy.url, prefix=f"/odd/{name}")) as store:
            proxy.spoil(ODD[name], 3)
            made = await store.create(ONE, HOST2, DAY)
            assert [(await store.leases()).leases for _ in range(3)] == [(made,)] * 3

    run(story())


DEEDS: list[Callable[[Etcd2Store, Lease], Awaitable[Lease]]] = [
    lambda store, lease: store.renew(lease, DAY),
    lambda store, lease: store.update(lease, HOST3, DAY),
    lambda store, lease: store.set_ttl(lease, None),
    lambda store, lease: store.set_ttl(lease, DAY),
]


def test_renewal_whose_answer_got_lost_is_no_conflict_when_it_is_repeated(shared: Etcd) -> None:
    async def story() -> None:
        async with HttpProxy(shared.port) as proxy, used(hasty(proxy.url, prefix="/lost")) as store:
            lease = await store.create(ONE, HOST2, 100)
            for deed in DEEDS:
                proxy.spoil(UNHEARD, only="PUT")
                with pytest.raises(Unavailable):
                    await deed(store, lease)
                done = await deed(store, lease)
                assert (await store.leases()).leases == (done,)
                lease = done
            proxy.spoil(UNHEARD, only="PUT")
            with pytest.raises(Unavailable):
                await store.renew(lease, DAY)
            await store.release(lease)
            assert (await store.leases()).leases == ()

    run(story())


def test_loss_of_an_answer_does_not_make_a_record_of_another_ours(shared: Etcd) -> None:
    """The first attempt is made in vain, and before the second one somebody else takes the subnet."""

    async def story() -> None:
        async with (
            HttpProxy(shared.port) as proxy,
            used(hasty(shared.url, prefix="/other")) as other,
            used(hasty(proxy.url, shared.url, prefix="/other")) as store,
        ):
            theirs = await other.create(ONE, HOST3, DAY)
            proxy.spoil(UNHEARD)
            with pytest.raises(Conflict):
                await store.create(ONE, HOST2, DAY)
            proxy.spoil(UNHEARD)
            with pytest.raises(Conflict):
                await store.create(ONE, HOST3, None)
            assert (await other.leases()).leases == (theirs,)

    run(story())


def test_server_that_repeats_what_it_is_sent_gives_no_password_away(shared: Etcd) -> None:
    credentials = Credentials("flannel", "s3cret")
    said = b64encode(b"flannel:s3cret").decode()

    async def story() -> None:
        async with HttpProxy(shared.port) as proxy, used(patient(proxy.url, credentials=credentials)) as store:
            proxy.spoil(instead(ok(f"you said Authorization: Basic {said}, that is s3cret")))
            with pytest.raises(Unavailable, match=r"you said Authorization: Basic …, that is …$"):
                await store.leases()

    run(story())
