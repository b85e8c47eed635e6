from __future__ import annotations

import errno

from pyflannel.linux.errors import KernelError, LinkGone


def test_an_error_says_what_was_tried_and_what_came_back() -> None:
    error = KernelError("ip link set flannel.1 mtu 9000", errno.EINVAL, "mtu greater than device maximum.")
    assert str(error) == "ip link set flannel.1 mtu 9000: mtu greater than device maximum (EINVAL)"


def test_without_the_kernels_words_the_code_is_spelled_out() -> None:
    assert str(LinkGone("ip neigh add", errno.ENODEV)) == "ip neigh add: No such device (ENODEV)"


def test_a_code_without_a_name_is_given_as_a_number() -> None:
    assert "errno 4095" in str(KernelError("listing routes", 4095))
