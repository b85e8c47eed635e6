"""How the kernel refuses: one class for each thing a caller can do about it."""

from __future__ import annotations

import errno
import os


class KernelError(Exception):
    """The kernel refused something.

    ``what`` is what was attempted, on what; ``code`` the errno, ``text`` the kernel's own words where it gave any
    (extended ACK, Linux 4.12).
    """

    def __init__(self, what: str, code: int, text: str = "") -> None:
        """Keep the three apart, for callers to look at."""
        super().__init__(what, code, text)
        self.what, self.code, self.text = what, code, text

    def __str__(self) -> str:
        """All of it in one line: ``ip link …: Cannot change VNI (EOPNOTSUPP)``."""
        name = errno.errorcode.get(self.code, f"errno {self.code}")
        return f"{self.what}: {self.text.rstrip('.') or os.strerror(self.code)} ({name})"


class LinkGone(KernelError):
    """The device an operation speaks of is not there: wait for it, do not retry blindly."""


class NotPermitted(KernelError):
    """We lack CAP_NET_ADMIN here: nothing will work, and a person has to act."""


class Unsupported(KernelError):
    """This kernel has no such kind of object: its module is missing or not built."""


class AlreadyThere(KernelError):
    """The slot was to be free, and somebody's object fills it: look before you write again."""
