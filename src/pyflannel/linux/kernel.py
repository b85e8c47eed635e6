"""The one door to the kernel's network state: what it promises, and the Linux that keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pyflannel.diff import Op
from pyflannel.linux.errors import AlreadyThere, KernelError, LinkGone, NotPermitted, Unsupported
from pyflannel.linux.netlink import Conversation, open_socket, refusal
from pyflannel.linux.netns import Netns
from pyflannel.linux.reader import Reader
from pyflannel.linux.spelling import spell
from pyflannel.linux.wireguard import Memory
from pyflannel.linux.writer import Writer
from pyflannel.state import Item, Key, Likeness, Scope, State

__all__ = [
    "AlreadyThere",
    "Kernel",
    "KernelError",
    "LinkGone",
    "LinuxKernel",
    "NotPermitted",
    "Report",
    "Unsupported",
]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch of operations."""

    done: tuple[Op, ...] = ()
    failed: tuple[tuple[Op, KernelError], ...] = ()


class Kernel(Protocol):
    """The network state of one network namespace."""

    def observe(self, scope: Scope) -> State:
        """All that the kernel holds inside ``scope``, read afresh.

        Where a device has several routes in one slot, all but the first are strays (``Route.stray``).
        """
        ...

    def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
        """The same, told by how it differs from ``known``.

        On borrowed devices it tells of routes as well that are as ``known`` has them but for the protocol, which is
        the one that Go flanneld leaves: they stand where ours belong.
        """
        ...

    def apply(self, ops: Sequence[Op]) -> Report:
        """Carry out ``ops`` in their order, each on its own: one that fails stops no other.

        Cutting what is already gone is success, and so is putting what is already there.  Putting into a slot that
        should be free (``old`` is None) but holds something else fails with ``AlreadyThere`` for a device and for a
        route, whose slot may be filled by somebody else's route on another device.  Addresses, neighbours and FDB
        entries are put on devices that are ours entirely, where we simply replace.
        """
        ...


class LinuxKernel:
    """The network namespace ``netns``, through rtnetlink.  Not for use by several threads at once."""

    def __init__(self, netns: Netns = None) -> None:
        """Open a netlink socket there; ``OSError`` where there is no such namespace."""
        self._netns = netns
        channel = open_socket(netns)
        self._conversation = Conversation(channel)
        self._memory = Memory()
        channel.bind((0, 0))
        self.port: int = channel.getsockname()[0]
        """The netlink port we write from, which the kernel names in the events we cause (``KernelEvents``)."""

    def __enter__(self) -> LinuxKernel:
        """Close when the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, whatever happened."""
        self.close()

    def close(self) -> None:
        """Let go of the socket; closing twice is fine."""
        self._conversation.close()

    def observe(self, scope: Scope) -> State:
        """As ``Kernel`` promises; ``KernelError`` if a listing fails or changes all the time."""
        return Reader(self._conversation, self._netns).observe(scope)

    def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
        """As ``Kernel`` promises; ``KernelError`` as above."""
        return Reader(self._conversation, self._netns, self._memory).compare(scope, known)

    def devices(self, names: Iterable[str]) -> State:
        """The devices of these names, whosever they are, without what is on them; ``KernelError`` as above."""
        return Reader(self._conversation, self._netns).devices(names)

    def apply(self, ops: Sequence[Op]) -> Report:
        """As ``Kernel`` promises."""
        outcome = Writer(self._conversation, self._netns).carry_out(ops)
        return Report(
            done=tuple(op for op, ack in outcome if not ack.code),
            failed=tuple((op, refusal(spell(op), ack)) for op, ack in outcome if ack.code),
        )
