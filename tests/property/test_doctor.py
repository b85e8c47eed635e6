"""What could not be found out is no problem."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Facts
from pyflannel.telemetry.document import PeerPart
from tests.support.healthy_host import HEALTHY, STATUS

T = TypeVar("T")
PARTS = ("agent", "network", "subnet_file", "docker", "clock")
"""Facts that have facts of their own."""
SAID = ("host", "network", "lease")
"""The same of what the agent says."""


def optional(value: object) -> list[str]:
    """The fields that may be None, or empty."""
    assert is_dataclass(value)
    return [each.name for each in fields(value) if each.default is None]


def forget(value: T, names: frozenset[str]) -> T:
    assert is_dataclass(value)
    forgotten: T = replace(value, **dict.fromkeys(names & set(optional(value))))  # type: ignore[type-var]
    return forgotten


@given(st.data())
def test_a_healthy_host_of_which_little_is_known_has_nothing_wrong(data: st.DataObject) -> None:
    known, status = HEALTHY, STATUS
    for part in SAID:
        value = getattr(status, part)
        names = data.draw(st.frozensets(st.sampled_from(optional(value))), label=f"status.{part}")
        status = replace(status, **{part: forget(value, names)})
    assert known.agent is not None
    known = replace(known, agent=replace(known.agent, status=status))
    for part in PARTS:
        value = getattr(known, part)
        names = data.draw(st.frozensets(st.sampled_from(optional(value))), label=part)
        known = replace(known, **{part: forget(value, names)})
    names = data.draw(st.frozensets(st.sampled_from(optional(known))), label="facts")
    settings = data.draw(st.frozensets(st.sampled_from(sorted(known.sysctls))), label="settings")
    apis = data.draw(st.frozensets(st.sampled_from(sorted(known.records))), label="records")
    known = replace(
        forget(known, names),
        sysctls={name: value for name, value in known.sysctls.items() if name not in settings},
        records={api: record for api, record in known.records.items() if api not in apis},
    )
    assert examine(known) == ()


def test_of_a_host_of_which_nothing_is_known_nothing_is_said() -> None:
    assert examine(Facts()) == ()


TEXTS = (
    "",
    "10.2.9.0/24",
    "10.2.9.1/32",
    "fd00:2:0:9::/64",
    "::/0",
    "0.0.0.0/0",
    "nonsense",
    "172.16.41.132",
    "::1",
    None,
)


@given(st.lists(st.builds(PeerPart, *[st.sampled_from(TEXTS)] * 4), max_size=4), st.sampled_from(TEXTS))
def test_whatever_a_status_says_can_be_judged(peers: list[PeerPart], subnet: str | None) -> None:
    assert HEALTHY.agent is not None
    status = replace(STATUS, peers=tuple(peers), lease=replace(STATUS.lease, subnet=subnet))
    for finding in examine(replace(HEALTHY, agent=replace(HEALTHY.agent, status=status))):
        assert finding.code
