"""What a process may do, read from its status."""

from __future__ import annotations

import os

from pyflannel.linux.rights import may_administer, may_administer_network


def test_a_process_with_cap_net_admin_may_program_the_network() -> None:
    assert may_administer("Name:\tflanneld\nCapPrm:\t0\nCapEff:\t0000000000001000\n")


def test_a_process_without_it_may_not() -> None:
    assert not may_administer("Name:\tflanneld\nCapPrm:\t0000000000001000\nCapEff:\t0000000000000fff\n")


def test_a_status_that_says_nothing_permits_nothing() -> None:
    assert not may_administer("")


def test_our_own_status_can_be_read() -> None:
    assert may_administer_network() or os.geteuid() != 0
