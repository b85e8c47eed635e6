"""What is answered where."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyflannel.health import Health
from pyflannel.lease.model import Subnet
from pyflannel.linux import counters
from pyflannel.probes.errands import NoAnswer
from pyflannel.settings import Settings
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import read
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.surfaces import Surface
from pyflannel.telemetry.views import ROUTES, answer, misled, routes
from tests.support.builders import vxlan_lease
from tests.support.loops import run_jumping
from tests.support.status import Bench

WAITING = Desk(Settings(), Health())
GET = Request("GET", "/")


@pytest.fixture(autouse=True)
def _no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has is none of our business."""
    monkeypatch.setattr(counters, "through", lambda _dev: None)


async def whole(response: Response) -> bytes:
    """The body, from all its pieces."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


def told(path: str, desk: Desk = WAITING, *, surface: Surface = Surface.CONTROL, method: str = "GET") -> Response:
    """What is answered, if it is short."""
    return asyncio.run(answer(desk, ROUTES[surface], Request(method, path)))


def with_bench(directory: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await scenario(Bench(directory))

    run_jumping(all_of_it())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_health_is_told_in_flannels_words_whatever_the_method(method: str) -> None:
    response = told("/healthz", method=method)
    assert (response.status, response.body) == (200, b"flanneld is running")


def test_readiness_is_told_in_flannels_words(tmp_path: Path) -> None:
    response = told("/readyz")
    assert (response.status, response.body) == (503, b"flanneld is not ready yet")

    async def scenario(bench: Bench) -> None:
        bench.publisher.ready = True
        response = await answer(bench.desk, ROUTES[Surface.HEALTH], Request("GET", "/readyz"))
        assert (response.status, response.body) == (200, b"flanneld is ready")

    with_bench(tmp_path, scenario)


def test_whoever_asks_for_health_alone_is_told_nothing_else() -> None:
    assert set(ROUTES[Surface.HEALTH]) == {"/healthz", "/readyz"}
    for path in ("/status", "/metrics", "/ask", "/", "/healthz/"):
        response = told(path, surface=Surface.HEALTH)
        assert (response.status, response.body) == (404, b"404 page not found\n")


def test_peers_are_asked_through_the_control_socket_alone() -> None:
    assert "/ask" in ROUTES[Surface.CONTROL]
    assert "/ask" not in ROUTES[Surface.STATUS]


def test_nothing_can_be_changed() -> None:
    response = told("/status", method="POST")
    assert response.status == 405
    assert ("Allow", "GET, HEAD") in response.headers


def test_the_status_is_a_document(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(vxlan_lease())
        response = await answer(bench.desk, ROUTES[Surface.STATUS], Request("GET", "/status"))
        assert response.type == "application/json"
        assert ("Cache-Control", "no-store") in response.headers
        assert len(read(await whole(response)).peers) == 1

    with_bench(tmp_path, scenario)


def test_the_metrics_are_prometheus(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(vxlan_lease())
        response = await answer(bench.desk, ROUTES[Surface.STATUS], Request("GET", "/metrics"))
        assert response.type == "text/plain; version=0.0.4; charset=utf-8"
        found = {family.name: family for family in text_string_to_metric_families((await whole(response)).decode())}
        assert found["flannel_leases"].samples[0].value == 2
        assert found["flannel_kernel_audits"].samples

    with_bench(tmp_path, scenario)


def asked(query: dict[str, str], desk: Desk) -> Awaitable[Response]:
    return answer(desk, ROUTES[Surface.CONTROL], Request("GET", "/ask", query))


@pytest.mark.parametrize("named", ["10.2.41.0/24"])
def test_a_question_is_put_to_the_peer_and_its_answer_handed_back(tmp_path: Path, named: str) -> None:
    heard: list[tuple[Subnet, bytes]] = []

    async def ask(subnet: Subnet, question: bytes) -> bytes:
        heard.append((subnet, question))
        return b"\x01\xff"

    async def scenario(bench: Bench) -> None:
        await bench.learn(vxlan_lease())
        bench.desk.parts = replace(bench.parts, ask=ask)
        response = await asked({"subnet": named, "q": "00ff"}, bench.desk)
        assert (response.status, response.body) == (200, b"\x01\xff")
        assert heard == [(vxlan_lease().subnet, b"\x00\xff")]

    with_bench(tmp_path, scenario)


def test_what_keeps_a_question_from_being_answered_is_said(tmp_path: Path) -> None:
    async def ask(_subnet: Subnet, _question: bytes) -> bytes:
        raise NoAnswer("asked 3 times")

    async def scenario(bench: Bench) -> None:
        assert (await asked({}, bench.desk)).status == 503
        await bench.learn(vxlan_lease())
        bench.desk.parts = replace(bench.parts, ask=ask)
        assert (await asked({"subnet": "10.2.41.0/24", "q": "xyz"}, bench.desk)).status == 400
        assert (await asked({"subnet": "10.2.99.0/24", "q": "00"}, bench.desk)).status == 404
        assert (await asked({"q": "00"}, bench.desk)).status == 404
        response = await asked({"subnet": "10.2.41.0/24", "q": "00"}, bench.desk)
        assert (response.status, response.body) == (504, b"asked 3 times\n")

    assert told("/ask").status == 503
    with_bench(tmp_path, scenario)


@pytest.mark.parametrize("host", ["", "localhost:8287", "127.0.0.1", "127.0.0.1:8287", "[::1]:8287", "172.16.41.131"])
def test_who_asks_for_this_host_is_answered(host: str) -> None:
    assert misled(Request("GET", "/status", host=host)) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8287", "localhost.evil.example", "[::1", "127.0.0.1.nip"]
)
def test_who_was_led_here_by_another_name_is_not(host: str) -> None:
    refusal = misled(Request("GET", "/status", host=host))
    assert refusal is not None
    assert refusal.status == 421


def test_the_page_is_where_it_is_asked_for_and_nowhere_else() -> None:
    paged = Desk(replace(Settings(), ui=True), Health())
    assert "/" in routes(paged, Surface.STATUS)
    assert "/" not in routes(paged, Surface.CONTROL)
    assert "/" not in routes(paged, Surface.HEALTH)
    assert "/" not in routes(WAITING, Surface.STATUS)
