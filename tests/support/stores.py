"""What the store contract suite needs of a store under test, whatever store it is.

To put a store under the suite: write a ``Harness`` for it beside this file, list a ``Maker`` for each flavour, and add
that list to ``MAKERS`` in tests/contract/test_store.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from pyflannel.store.api import Store

PREFIX = "/coreos.com/network"
"""The prefix every harness puts its network under."""
LEASE = '{"PublicIP":"172.16.41.140"}'
"""What anybody may have written somewhere."""


class Harness(Protocol):
    """One store, empty at the start, with the back door by which somebody else writes to it.

    The methods are plain functions and may block for a moment; each has had its effect when it returns.
    """

    @property
    def shortest_ttl(self) -> int:
        """Seconds: the shortest life this store really keeps to."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts, such as a password the clients were given, that may show neither in a name nor in an error."""
        ...

    @property
    def can_forget(self) -> bool:
        """Whether ``forget_history`` works."""
        ...

    @property
    def can_stop(self) -> bool:
        """Whether ``stop`` and ``start`` work."""
        ...

    def open(self) -> Store:
        """One more client of the same data.  The caller closes it."""
        ...

    def write_config(self, text: str) -> None:
        """Write the record ``<prefix>/config`` as an administrator would."""
        ...

    def delete_config(self) -> None:
        """Delete the record ``<prefix>/config``."""
        ...

    def write_beside(self, key: str) -> None:
        """Write ``LEASE`` at ``<prefix>/<key>``, where no lease belongs."""
        ...

    def write_raw(self, name: str, value: str) -> None:
        """Write a foreign record, living for ever, at ``<prefix>/subnets/<name>``; create or overwrite."""
        ...

    def delete_raw(self, name: str) -> None:
        """Delete the record at ``<prefix>/subnets/<name>``."""
        ...

    def read_raw(self, name: str) -> str | None:
        """The text at ``<prefix>/subnets/<name>``, None if there is no such key."""
        ...

    def forget_history(self) -> None:
        """Make every revision before the present one impossible to watch from (compaction, index cleared)."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let the store live through ``seconds``: move a clock that is ours, sleep where it is not."""
        ...

    def stop(self) -> None:
        """Take the store down; clients stay open and have to notice."""
        ...

    def start(self) -> None:
        """Bring the store back at the same place with the same data."""
        ...


HarnessFactory: TypeAlias = Callable[[Path], AbstractContextManager[Harness]]
"""Makes a harness in an empty directory of its own and takes everything down at the end."""


@dataclass(frozen=True, slots=True)
class Maker:
    """One row of the suite's parametrisation."""

    name: str
    make: HarnessFactory
    needs: tuple[str, ...] = ()
    """Capabilities of the machine, as in ``pytest.mark.needs``."""
