"""What the agent says before it has touched anything; the rest is seen in tests/netns/test_agent.py."""

from __future__ import annotations

import errno

from pyflannel.agent import explain
from pyflannel.linux.kernel import KernelError, Unsupported


def test_a_port_that_is_taken_is_explained() -> None:
    said = explain(KernelError("ip link add flannel.1 type vxlan", errno.EADDRINUSE))
    assert said.startswith("ip link add flannel.1 type vxlan: Address already in use (EADDRINUSE): ")
    assert "Backend.Port" in said


def test_a_kernel_without_such_devices_is_explained() -> None:
    said = explain(Unsupported("ip link add flannel.ipip up mtu 1480 type ipip local 192.0.2.1", errno.EOPNOTSUPP))
    assert "modprobe ipip" in said


def test_other_refusals_stand_for_themselves() -> None:
    assert explain(KernelError("ip link add flannel.1", errno.EPERM)).endswith("(EPERM)")
