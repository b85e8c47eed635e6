from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from pyflannel.backends.metric import IPV6_METRIC, METRICS, metric


def test_neighbouring_subnets_never_share_a_metric_that_is_spread() -> None:
    subnets = list(IPv4Network("10.0.0.0/8").subnets(new_prefix=24))[: METRICS + 1]
    spread = [metric(subnet, True) for subnet in subnets]
    assert sorted(spread[:METRICS]) == list(range(1, METRICS + 1))
    assert spread[METRICS] == spread[0]


@pytest.mark.parametrize("spread", [False, True])
def test_ipv6_routes_have_the_kernels_own(spread: bool) -> None:
    assert metric(IPv6Network("fd00:2:0:41::/64"), spread) == IPV6_METRIC


def test_few_routes_have_none() -> None:
    assert metric(IPv4Network("10.2.41.0/24"), False) == 0
