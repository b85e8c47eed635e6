from __future__ import annotations

import pytest

from pyflannel.store.keys import config_key, subnets_key


@pytest.mark.parametrize(
    "prefix", ["/coreos.com/network", "/coreos.com/network/", "//coreos.com//network", "/./coreos.com/network"]
)
def test_slashes_collapse_as_in_go(prefix: str) -> None:
    assert config_key(prefix) == "/coreos.com/network/config"
    assert subnets_key(prefix) == "/coreos.com/network/subnets/"


def test_prefix_without_leading_slash_stays_without() -> None:
    assert config_key("docker/network") == "docker/network/config"


def test_empty_prefix_is_the_root() -> None:
    assert (config_key("/"), config_key("")) == ("/config", "config")
