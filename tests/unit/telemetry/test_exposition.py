"""Prometheus' text format, as its own client reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pyflannel.durations import Durations
from pyflannel.telemetry.exposition import PORTION, Family, write, write_durations

PEERS = Family("flannel_peers", "gauge", "Other hosts.", ("state",))


def test_a_gauge_is_told_with_its_help_and_type() -> None:
    assert "".join(write(PEERS, [(("reachable",), 12), (("lossy",), 0.5)])) == (
        "# HELP flannel_peers Other hosts.\n"
        "# TYPE flannel_peers gauge\n"
        'flannel_peers{state="reachable"} 12\n'
        'flannel_peers{state="lossy"} 0.5\n'
    )


def test_a_number_without_labels_stands_alone() -> None:
    assert list(write(Family("up", "gauge", "Up."), [((), True)]))[1:] == ["up 1\n"]


def test_what_has_no_samples_is_described_all_the_same() -> None:
    assert "".join(write(PEERS, [])).count("\n") == 2


def test_durations_are_told_cumulatively() -> None:
    took = Durations((0.1, 1.0))
    for seconds in (0.05, 0.5, 3.0):
        took.note(seconds)
    family = Family("request_seconds", "histogram", "Time.", ("operation",))
    assert "".join(write_durations(family, [(("list",), took)])).splitlines()[2:] == [
        'request_seconds_bucket{operation="list",le="0.1"} 1',
        'request_seconds_bucket{operation="list",le="1.0"} 2',
        'request_seconds_bucket{operation="list",le="+Inf"} 3',
        'request_seconds_sum{operation="list"} 3.55',
        'request_seconds_count{operation="list"} 3',
    ]


def test_much_is_written_in_portions() -> None:
    pieces = list(write(PEERS, (((str(number),), number) for number in range(3 * PORTION))))
    assert [piece.count("\n") for piece in pieces] == [2, PORTION, PORTION, PORTION]


@given(
    st.text(),
    st.lists(
        st.tuples(st.tuples(st.text(), st.text()), st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)),
        max_size=5,
    ),
)
def test_whatever_is_written_prometheus_client_reads_back(
    said: str, samples: list[tuple[tuple[str, str], int | float]]
) -> None:
    text = "".join(write(Family("flannel_x", "gauge", said, ("peer", "why")), samples))
    (family,) = text_string_to_metric_families(text)
    assert (family.name, family.type) == ("flannel_x", "gauge")
    assert [((each.labels["peer"], each.labels["why"]), each.value) for each in family.samples] == [
        (values, float(number)) for values, number in samples
    ]
