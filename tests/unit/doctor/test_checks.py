"""All checks together."""

from __future__ import annotations

import re
from dataclasses import replace

from pyflannel import conditions
from pyflannel.doctor.checks import CHECKS, examine
from pyflannel.health import Severity
from tests.support.healthy_host import HEALTHY, codes


def test_a_healthy_host_hears_of_nothing() -> None:
    assert examine(HEALTHY) == ()


def test_every_code_means_one_thing_whether_the_agent_or_the_doctor_says_it() -> None:
    found = [check.code for check in CHECKS] + [kind.code for kind in conditions.ALL]
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in found)


def test_the_worst_comes_first() -> None:
    facts = replace(HEALTHY, nft_tables=("ip flannel-ipv4",), sysctls={"net/ipv4/ip_forward": "0"})
    assert codes(facts) == ["forwarding-off", "stale-rules"]
    severities = [each.severity for each in examine(facts)]
    assert severities == [Severity.ERROR, Severity.WARNING]


def test_every_check_says_what_it_means_and_what_to_do_in_whole_sentences() -> None:
    for check in CHECKS:
        assert not check.title.endswith("."), check.code
        assert check.means.endswith("."), check.code
        assert check.remedy.endswith("."), check.code
