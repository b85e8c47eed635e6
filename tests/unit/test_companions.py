"""Nobody is there for nothing; what they do is seen with their backends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pyflannel import backends
from pyflannel.companions import Companions
from pyflannel.hooks.record import path
from pyflannel.lease.network import parse_network_config
from pyflannel.network import Way
from pyflannel.settings import Settings
from pyflannel.state import Forwarder, Hook, Item, Link
from tests.support.builders import view
from tests.support.fake_kernel import FakeKernel, Hardware


def kept_beside_the_kernel(directory: Path, backend: str) -> set[type[Item]]:
    """The kinds of item that do not go to the kernel itself."""
    settings = Settings(subnet_file=str(directory / "subnet.env"))
    kernel = FakeKernel(Hardware("eth0"))
    config = parse_network_config(f'{{"Network":"10.2.0.0/16","Backend":{backend}}}')

    async def scenario() -> set[type[Item]]:
        way = Way(backends.from_config(config), view(config))
        companions = Companions(settings, [way], kernel, lambda: None)
        try:
            if companions.kernel is kernel:
                return set()
            return {kind for kind in (Forwarder, Hook, Link) if kind in companions.kinds}
        finally:
            companions.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("backend", "kinds"),
    [
        ('{"Type":"vxlan"}', set()),
        ('{"Type":"udp"}', {Forwarder}),
        ('{"Type":"extension","SubnetAddCommand":"true"}', {Hook}),
    ],
)
def test_each_is_there_for_the_backend_that_needs_it(tmp_path: Path, backend: str, kinds: set[type[Item]]) -> None:
    assert kept_beside_the_kernel(tmp_path, backend) == kinds


def test_what_hooks_have_left_is_looked_after_whatever_the_backend(tmp_path: Path) -> None:
    path(tmp_path, Settings().etcd_prefix).write_text("")
    assert kept_beside_the_kernel(tmp_path, '{"Type":"vxlan"}') == {Hook}
