from __future__ import annotations

import pytest

from pyflannel.state import (
    Mac,
)


@pytest.mark.parametrize("text", ["02:00:5e:10:00:ff", "02-00-5E-10-00-FF"])
def test_a_mac_is_read_in_both_spellings_and_written_in_one(text: str) -> None:
    assert str(Mac.parse(text)) == "02:00:5e:10:00:ff"


@pytest.mark.parametrize("text", ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:5e:10:0:ff", "02:00:5e:10:00:fg"])
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a MAC address"):
        Mac.parse(text)


@pytest.mark.parametrize("length", [0, 5, 7, 8])
def test_a_mac_has_six_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="6 bytes"):
        Mac(bytes(length))


def test_only_a_hosts_own_mac_is_unicast() -> None:
    assert Mac.parse("02:00:00:00:00:01").is_unicast
    assert not Mac.parse("01:00:5e:00:00:01").is_unicast
    assert not Mac(bytes(6)).is_unicast
