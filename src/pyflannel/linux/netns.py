"""Doing something in another network namespace, without leaving our own.

A namespace belongs to a thread, not to a process (setns(2)).  So a short-lived thread goes there, does its errand and
ends; nothing has to find its way back, which is the step that fails.  A socket made there stays there for life.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

Netns: TypeAlias = str | int | None
"""A name as ``ip netns`` lists it, a path such as ``/proc/42/ns/net``, an open descriptor of one; None is our own."""

NAMED: Final = "/run/netns"
"""Where ``ip netns add`` mounts a namespace under its name (ip-netns(8))."""
CLONE_NEWNET: Final = 0x40000000
"""linux/sched.h; makes setns(2) refuse a descriptor of any other kind of namespace."""

T = TypeVar("T")


def inside(netns: Netns, errand: Callable[[], T]) -> T:
    """What ``errand`` returns, or raises, when it runs in ``netns``; ``OSError`` where there is no such namespace."""
    if netns is None:
        return errand()
    result: list[T] = []
    trouble: list[BaseException] = []

    def go() -> None:
        try:
            _enter(netns)
            result.append(errand())
        except BaseException as error:  # carried over to the caller's thread, whatever it is
            trouble.append(error)

    thread = threading.Thread(target=go, name=f"netns {netns}")
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return result[0]


def _enter(netns: str | int) -> None:
    if isinstance(netns, int):
        _setns(netns, f"descriptor {netns}")
        return
    path = netns if "/" in netns else f"{NAMED}/{netns}"
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(descriptor, path)
    finally:
        os.close(descriptor)


def _setns(descriptor: int, name: str) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"entering network namespace: {os.strerror(code)}", name)
