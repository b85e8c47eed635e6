"""What becomes of the chosen interface while the agent runs: renamed, replaced, given another address or MTU.

Rules of this file
  1. The choice is made anew by the rules of ``host.choose``, so that a running agent uses what a restarted one would,
     with one exception: an address that still serves is kept, for every change of it is a change at every peer.
  2. While nothing can be chosen, what we have stays in force: peers go on sending to it, and it most often comes back.
"""

from __future__ import annotations

from dataclasses import replace

from pyflannel.host import Facts, Interface, NoInterface, Underlay, Wish, choose, usable
from pyflannel.state import IPAddress


def follow(now: Underlay, facts: Facts, wish: Wish) -> Underlay | None:
    """The underlay as it is now; None while there is none to be had."""
    try:
        chosen = choose(facts, wish)
    except NoInterface:
        return _renamed(now, facts)
    held = next((one for one in facts.interfaces if one.index == chosen.index), None)
    if held is not None and not held.up:
        # At a start it would do, for it may come up any moment; but who relies on us is to know.
        return None
    if held is None or chosen.name != now.name or not _still_serves(now, held):
        return chosen
    # Nobody asked for another address of the same interface.
    return replace(now, index=chosen.index, mtu=chosen.mtu)


def _renamed(now: Underlay, facts: Facts) -> Underlay | None:
    """The interface we used, under the name it has now: the kernel keeps the index, and we the addresses."""
    for one in facts.interfaces:
        if one.index == now.index and one.name != now.name and _still_serves(now, one):
            return replace(now, name=one.name, mtu=one.mtu, why=f"it was {now.name} before it was renamed")
    return None


def _still_serves(now: Underlay, interface: Interface) -> bool:
    able: list[IPAddress] = usable(interface)
    return all(address in able for address in (now.ipv4, now.ipv6) if address is not None)
