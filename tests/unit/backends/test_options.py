from __future__ import annotations

import pytest

from pyflannel.backends.options import Options
from pyflannel.lease.network import ConfigError, parse_network_config


def test_options_are_found_in_any_case() -> None:
    options = Options({"type": "vxlan", "vni": 7, "LEARNING": True, "psk": "s3cret"})
    assert options.integer("VNI", 1, 0, 100) == 7
    assert options.flag("Learning", False) is True
    assert options.text("PSK", "") == "s3cret"


def test_an_option_that_is_not_given_has_its_default() -> None:
    options = Options({"Type": "vxlan", "Port": None})
    assert options.integer("Port", 8472, 0, 65535) == 8472
    assert options.flag("GBP", False) is False
    assert options.text("Mode", "separate") == "separate"


def test_a_wrong_option_is_named_with_what_it_holds_and_what_was_expected() -> None:
    with pytest.raises(ConfigError) as caught:
        Options({"vni": "1"}).integer("VNI", 1, 0, 16777215)
    assert str(caught.value) == 'Backend.VNI holds a text ("1"): expected an integer from 0 to 16777215'


def test_the_type_is_never_among_the_unread() -> None:
    options = Options({"TYPE": "vxlan", "VNI": 1, "Vin": 2})
    options.integer("VNI", 1, 0, 9)
    assert options.unread() == ("Vin",)
    assert options.complaints() == ("Backend.Vin is not a key we know, and has no effect: did you mean Backend.VNI?",)


def test_options_come_from_the_network_configuration() -> None:
    config = parse_network_config('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":3,"vni":4}}')
    assert Options(config.backend_options).integer("VNI", 1, 0, 9) == 4
