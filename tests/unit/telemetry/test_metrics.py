"""The metrics: what each says of a status document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyflannel import conditions
from pyflannel.store.metered import Meter
from pyflannel.telemetry.document import Document, KernelPart
from pyflannel.telemetry.metrics import FAMILIES, Measured, expose
from tests.support.status import NOW, PEER, TROUBLE, USAGE, document, watched

LOST = replace(
    PEER, subnet="10.2.9.0/24", state="unreachable", rtt=None, loss=1.0, tx_bytes=7, rx_packets=0, drops={"ttl": 3}
)


def measured(said: Document | None = None) -> Measured:
    return watched(said or document(peers=[PEER, LOST]))


def text(what: Measured) -> str:
    return "".join(expose(what))


def sample(what: Measured, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """The one sample of this name, with these labels among its own; None if there is none."""
    found = [
        each.value
        for family in text_string_to_metric_families(text(what))
        for each in family.samples
        if each.name == name and each.labels.items() >= (labels or {}).items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("flannel_build_info", {"version": "0.1.0", "backend": "vxlan"}, 1),
        ("flannel_ready", {}, 1),
        ("flannel_leases", {}, 3),
        ("flannel_lease_expiry_timestamp_seconds", {}, NOW + 16 * 3600),
        ("flannel_lease_renewed_timestamp_seconds", {}, NOW - 8 * 3600),
        ("flannel_peers", {"state": "reachable"}, 1),
        ("flannel_peers", {"state": "unreachable"}, 1),
        ("flannel_peers", {"state": "failed"}, 0),
        ("flannel_peer_up", {"peer": "10.2.41.0/24"}, 1),
        ("flannel_peer_up", {"peer": "10.2.9.0/24"}, 0),
        ("flannel_peer_rtt_seconds", {"peer": "10.2.41.0/24"}, 0.0012),
        ("flannel_peer_rtt_seconds", {"peer": "10.2.9.0/24"}, None),
        ("flannel_peer_loss_ratio", {"peer": "10.2.9.0/24"}, 1),
        ("flannel_peer_mtu_bytes", {"peer": "10.2.41.0/24"}, 1450),
        ("flannel_peer_transmit_bytes_total", {"peer": "10.2.9.0/24"}, 7),
        ("flannel_peer_receive_packets_total", {"peer": "10.2.9.0/24"}, 0),
        ("flannel_peer_dropped_packets_total", {"peer": "10.2.9.0/24", "reason": "ttl"}, 3),
        ("flannel_peer_dropped_packets_total", {"peer": "10.2.41.0/24"}, None),
        ("flannel_device_transmit_bytes_total", {"device": "flannel.1"}, 1000),
        ("flannel_device_receive_packets_total", {"device": "flannel.1"}, 20),
        ("flannel_kernel_items_wanted", {"kind": "Route"}, 1),
        ("flannel_kernel_items_failed", {}, None),
        ("flannel_kernel_audits_total", {"reason": "start"}, 2),
        ("flannel_kernel_audits_total", {"reason": "interval"}, 0),
        ("flannel_kernel_repairs_total", {"reason": "event", "kind": "Route"}, 3),
        ("flannel_kernel_write_duration_seconds_count", {}, 1),
        ("flannel_kernel_look_duration_seconds_count", {}, 0),
        ("flannel_firewall_ok", {}, 1),
        ("flannel_firewall_repairs_total", {}, 1),
        ("flannel_subnet_file_written", {}, 1),
        ("flannel_store_up", {}, 1),
        ("flannel_store_errors_total", {"operation": "renew"}, 4),
        ("flannel_store_watch_heard_timestamp_seconds", {}, NOW - 3),
        ("flannel_store_request_duration_seconds_sum", {"operation": "leases"}, 0.02),
        ("process_resident_memory_bytes", {}, 30_000_000),
        ("process_start_time_seconds", {}, NOW - 3 * 86400),
    ],
)
def test_each_metric_says_what_the_document_does(name: str, labels: dict[str, str], value: float | None) -> None:
    assert sample(measured(), name, labels) == value


def test_every_kind_of_condition_is_told_whether_it_is_there_or_not() -> None:
    what = measured(document(TROUBLE))
    assert sample(what, "flannel_condition", {"code": "store-unreachable", "severity": "error"}) == 1
    assert sample(what, "flannel_condition", {"code": "from-memory"}) == 0
    assert text(what).count("\nflannel_condition{") == len(conditions.ALL)


def test_what_is_refused_is_not_programmed_and_what_cannot_be_removed_counts_once() -> None:
    kernel = KernelPart({"Route": 5}, {"Route": 2, "FdbEntry": 1})
    what = measured(replace(document(), kernel=kernel))
    assert sample(what, "flannel_kernel_items_programmed", {"kind": "Route"}) == 3
    assert sample(what, "flannel_kernel_items_failed", {"kind": "FdbEntry"}) == 1


def test_an_agent_that_waits_tells_what_it_knows_and_guesses_nothing() -> None:
    waiting = Measured(Document(), Meter(), USAGE)
    for name in ("flannel_leases", "flannel_store_up", "flannel_firewall_ok", "flannel_kernel_audits_total"):
        assert sample(waiting, name) is None
    assert sample(waiting, "flannel_ready") == 0
    assert sample(waiting, "process_open_fds") == 21


def test_all_of_it_is_what_prometheus_client_reads_and_nothing_else() -> None:
    found = {family.name: family for family in text_string_to_metric_families(text(measured()))}
    for family in FAMILIES:
        assert found[family.name.removesuffix("_total")].type == family.type
        assert found[family.name.removesuffix("_total")].documentation == family.help
    assert len(found) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_and_texts_follow_the_conventions(family: object) -> None:
    name, kind, said = family.name, family.type, family.help  # type: ignore[attr-defined]
    assert re.fullmatch("(flannel|process)(_[a-z0-9]+)+", name)
    assert name.endswith("_total") == (kind == "counter")
    assert not any(unit in name for unit in ("_ms", "milliseconds", "kilobytes", "percent"))
    assert said.endswith(".")
    assert "\n" not in said


def test_a_thousand_peers_are_told_in_portions() -> None:
    peers = [replace(PEER, subnet=f"10.2.{number >> 8}.{number & 255}/32") for number in range(1000)]
    pieces = list(expose(measured(document(peers=peers))))
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 5
