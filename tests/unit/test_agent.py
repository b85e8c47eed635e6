"""What the agent says before it has touched anything; the rest is seen in tests/netns/test_agent.py."""

from __future__ import annotations

import errno

from pyflannel.agent import explain
from pyflannel.linux.kernel import KernelError


def test_a_port_that_is_taken_is_explained() -> None:
    said = explain(KernelError("ip link add flannel.1 type vxlan", errno.EADDRINUSE))
    assert said.startswith("ip link add flannel.1 type vxlan: Address already in use (EADDRINUSE): ")
    assert "Backend.Port" in said


def test_other_refusals_stand_for_themselves() -> None:
    assert explain(KernelError("ip link add flannel.1", errno.EPERM)).endswith("(EPERM)")
