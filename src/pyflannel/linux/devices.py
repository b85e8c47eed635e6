"""Which index a device has, asked anew for every pass.

Names are what people and plans use, indices what the kernel's messages carry.  An index is good for as long as the
device lives, so remembering one for longer than a pass could make us write to a device that is gone; the kernel does
not give an index to another device soon, but it says so nowhere.
"""

from __future__ import annotations

from pyflannel.linux import links
from pyflannel.linux.errors import LinkGone
from pyflannel.linux.netlink import Conversation


class Devices:
    """The devices one pass meets, each asked for once."""

    def __init__(self, conversation: Conversation) -> None:
        """Ask through ``conversation``."""
        self._conversation = conversation
        self._indices: dict[str, int | None] = {}

    def index(self, name: str) -> int | None:
        """The index of a device; None if there is none of that name."""
        if name not in self._indices:
            found = self.look(name)
            self._indices[name] = None if found is None else found.index
        return self._indices[name]

    def forget(self, name: str) -> None:
        """Ask again next time: the device was made, deleted, or is not what it was."""
        self._indices.pop(name, None)

    def look(self, target: str | int) -> links.Device | None:
        """A device as it is now, by name or index; None if it is not there."""
        try:
            return links.read(self._conversation.ask(f"looking up device {target}", links.query(target)))
        except LinkGone:
            return None
