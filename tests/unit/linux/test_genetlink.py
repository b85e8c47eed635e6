from __future__ import annotations

import pytest
from pyroute2.netlink.generic import ctrlmsg

from pyflannel.linux import genetlink
from pyflannel.linux.errors import Unsupported
from pyflannel.linux.netlink import HEADER


def test_a_family_is_asked_for_by_name() -> None:
    request = genetlink.query("wireguard")
    read = ctrlmsg(HEADER.pack(HEADER.size + len(request.body), request.type, 0, 1, 0) + request.body)
    read.decode()
    assert (read["header"]["type"], read["cmd"]) == (16, 3)
    assert read.get_attr("CTRL_ATTR_FAMILY_NAME") == "wireguard"


def test_the_family_that_knows_the_others_is_known() -> None:
    with genetlink.opened() as conversation:
        assert genetlink.family(conversation, "nlctrl") == genetlink.GENL_ID_CTRL


def test_a_kernel_without_a_family_says_so() -> None:
    with genetlink.opened() as conversation, pytest.raises(Unsupported, match="this kernel has no pyflannel"):
        genetlink.family(conversation, "pyflannel")
