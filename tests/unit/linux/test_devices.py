from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyflannel.linux.devices import Devices
from pyflannel.linux.netlink import Conversation, open_socket
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "bridge")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("devices") as made:
        yield made


@pytest.fixture
def devices(space: Namespace) -> Iterator[Devices]:
    conversation = Conversation(open_socket(space.name))
    yield Devices(conversation)
    conversation.close()


def index(space: Namespace, name: str) -> object:
    """What ip(8) says."""
    return space.objects(f"ip -j link show {name}")[0]["ifindex"]


def test_a_device_is_found_by_name_and_by_index(space: Namespace, devices: Devices) -> None:
    space.run("ip link add br0 type bridge")
    found = devices.look("br0")
    assert found is not None
    assert (found.name, found.kind, found.index) == ("br0", "bridge", index(space, "br0"))
    assert devices.index("br0") == found.index
    assert devices.look(found.index) == found


def test_a_device_that_is_not_there_has_no_index(devices: Devices) -> None:
    assert devices.index("br0") is None
    assert devices.look("br0") is None
    assert devices.look(4711) is None


def test_a_name_is_asked_for_once_until_it_is_forgotten(space: Namespace, devices: Devices) -> None:
    space.run("ip link add br0 type bridge")
    first = devices.index("br0")
    space.run("ip link delete br0")
    space.run("ip link add br0 type bridge")
    assert devices.index("br0") == first
    devices.forget("br0")
    assert devices.index("br0") == index(space, "br0") != first


def test_that_there_was_no_device_is_remembered_too(space: Namespace, devices: Devices) -> None:
    assert devices.index("br0") is None
    space.run("ip link add br0 type bridge")
    assert devices.index("br0") is None
    devices.forget("br0")
    assert devices.index("br0") == index(space, "br0")


def test_forgetting_what_was_never_asked_for_is_fine(devices: Devices) -> None:
    devices.forget("br0")
