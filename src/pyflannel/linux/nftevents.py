"""When the firewall's rules were changed, as the kernel tells it (nfnetlink, linux/netfilter/nf_tables.h).

Rules of this file
  1. It says *that* something changed, never what: whoever wants to know looks at the rules, which is cheap and right
     even where a message was lost.
  2. nf_tables carries changes out in transactions and ends the report of each with one message of its own.  Only that
     one counts, so that whoever looks then sees all of the transaction.

The tools of the legacy variant tell nobody, and a kernel without nf_tables has nothing to tell.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from pyflannel.linux.netlink import DATAGRAM, messages
from pyflannel.linux.netns import Netns, inside

NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7
NEWGEN: Final = 10 << 8 | 15
"""Subsystem NFNL_SUBSYS_NFTABLES, message NFT_MSG_NEWGEN: a transaction was carried out."""
AT_ONCE: Final = 64
"""Datagrams read before other tasks get their turn."""


def ends_transaction(datagram: bytes) -> bool:
    """Whether one of the messages in ``datagram`` says that a transaction was carried out; any bytes will do."""
    return any(message.type == NEWGEN for message in messages(datagram))


class RuleEvents:
    """Tells of changes to the nf_tables rules of one network namespace, whoever makes them, ourselves included."""

    def __init__(self, netns: Netns = None) -> None:
        """Listen from now on, in the running loop; ``OSError`` where the kernel does not let us."""
        self._heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._socket = inside(netns, _subscribed)
        self._loop.add_reader(self._socket, self._read)

    async def wait(self, settle: float = 0.0) -> None:
        """Return ``settle`` seconds after a transaction, at once if one was carried out since the last return.

        What happens while it settles is part of that return.  Giving up waiting loses nothing.
        """
        await self._heard.wait()
        await asyncio.sleep(settle)
        self._heard.clear()

    def close(self) -> None:
        """Stop listening; closing twice is fine."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            try:
                datagram, (sender, _groups) = self._socket.recvfrom(DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS, mostly: something was lost, and that may have been the end of a transaction.
                self._heard.set()
                continue
            # Only the kernel is port 0.
            if sender == 0 and ends_transaction(datagram):
                self._heard.set()


def _subscribed() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        made.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made
