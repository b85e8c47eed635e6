"""Carrying out operations: many of a kind in one system call, and the few that need more than one step.

Rules of this file
  1. Operations are carried out in their order, run by run of one verb and kind.  A step that follows from the answer
     to another waits for the whole run, never for longer.
  2. What is asked for and already so is success, whoever brought it about.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from itertools import groupby
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.diff import SETTINGS, Cut, Op, Put, device, must_rebuild, satisfies
from pyflannel.linux import addresses, ethtool, links, neighbours, routes, sysctls, tuntap, wguapi, wireguard
from pyflannel.linux.devices import Devices
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import Ack, Conversation, Request
from pyflannel.linux.netns import Netns
from pyflannel.linux.reader import Reader
from pyflannel.state import (
    Address,
    ChecksumOffload,
    FdbEntry,
    Ipip,
    Item,
    Link,
    Misfit,
    Neighbour,
    Route,
    Sysctl,
    Tun,
    Vxlan,
    Wireguard,
)
from pyflannel.wireguard import WireguardDevice, WireguardPeer

DONE: Final = Ack(0)
GONE: Final = frozenset((errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL))
"""What the kernel says when asked to delete what is not there: each table has its own word for it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A route that is being put."""

    place: int
    """Of its operation, in the run."""
    index: int
    """Of its device."""
    item: Route
    old: Route
    """What it takes the place of; itself if the slot was to be free."""
    old_index: int | None
    """Of the device that one goes through, which may be another; None if that is gone."""


class Writer:
    """One pass over a list of operations."""

    def __init__(self, conversation: Conversation, netns: Netns) -> None:
        """Write through ``conversation``, which is in ``netns``."""
        self._conversation, self._netns = conversation, netns
        self._devices = Devices(conversation)
        self._reader = Reader(conversation, netns)

    def carry_out(self, ops: Iterable[Op]) -> list[tuple[Op, Ack]]:
        """Each operation with what became of it."""
        outcome: list[tuple[Op, Ack]] = []
        for (_, kind), group in groupby(ops, key=lambda op: (type(op), type(op.item))):
            run = list(group)
            if kind in (Link, Misfit):
                acks = [self._link(op) for op in run]
            elif kind in SETTINGS:
                acks = [self._set(op) for op in run]
            elif kind in (WireguardDevice, WireguardPeer):
                acks = self._wireguard(run)
            else:
                acks = self._batch(run)
            outcome += zip(run, acks, strict=True)
        return outcome

    def _set(self, op: Op) -> Ack:
        match op:
            case Put(Sysctl() as item):
                return sysctls.write(item, self._netns)
            case Put(ChecksumOffload() as item):
                return ethtool.write(item, self._netns)
            case _:
                return DONE  # a setting cannot be taken away

    def _wireguard(self, run: Sequence[Op]) -> list[Ack]:
        acks = [DONE] * len(run)
        for name in dict.fromkeys(device(op.item) for op in run):
            places = [place for place, op in enumerate(run) if device(op.item) == name]
            ops, found = [run[place] for place in places], self._devices.look(name)
            if found is None:
                answers = [_no_device(op.item) for op in ops]
            elif found.kind == "wireguard":
                answers = wireguard.carry_out(ops, found.index, self._netns)
            else:
                answers = wguapi.carry_out(ops, name)
            for place, op, ack in zip(places, ops, answers, strict=True):
                acks[place] = _forgiving(ack) if isinstance(op, Cut) else ack
        return acks

    def _link(self, op: Op) -> Ack:
        try:
            if isinstance(op, Put) and isinstance(op.item, Link):
                return self._put_link(op.item, op.old)
            return self._delete(_present_name(op.item))
        finally:
            self._devices.forget(device(op.item))

    def _put_link(self, item: Link, old: Item | None) -> Ack:
        under = item.spec.underlay if isinstance(item.spec, Vxlan | Ipip) else ""
        below = self._devices.index(under) if under else 0
        if below is None:
            return Ack(errno.ENODEV, f"there is no device {under} to carry its packets")
        if isinstance(old, Link) and not must_rebuild(item, old):
            return self._change_link(item, old, below)
        if isinstance(old, Misfit) and old.foreign:
            return _in_the_way(old)
        if old is not None and (ack := self._delete(_present_name(old))).code:
            return ack
        ack = self._create(item, below)
        if ack.code == errno.EOPNOTSUPP and isinstance(item.spec, Wireguard):
            return self._serve(item)
        if ack.code != errno.EEXIST:
            return ack
        found = self._devices.look(item.name)
        present = None if found is None else self._reader.link(found)
        if isinstance(present, Misfit):
            return _in_the_way(present)
        if present is not None and satisfies(present, item):
            return DONE
        rival = self._reader.rival(item)
        hint = f": it is {rival} (if nobody needs it: ip link del {rival})" if rival else ""
        return Ack(ack.code, ack.text.rstrip(".") + hint)

    def _serve(self, item: Link) -> Ack:
        """Have a program make and serve a device which this kernel cannot."""
        ack = wguapi.start(item.name, self._netns)
        found = None if ack.code else self._devices.look(item.name)
        if found is None:
            return ack if ack.code else _no_device(item)
        return self._do(*links.change(item, links.as_item(found, ""), found.index, 0))

    def _create(self, item: Link, below: int) -> Ack:
        if not isinstance(item.spec, Tun):
            return self._do(links.create(item, below))
        ack = tuntap.make(item.name, self._netns)
        self._devices.forget(item.name)
        index = None if ack.code else self._devices.index(item.name)
        return ack if index is None else self._do(*links.change(item, replace(item, mtu=0), index, below))

    def _change_link(self, item: Link, old: Link, below: int) -> Ack:
        index = self._devices.index(_present_name(old))
        if index is None:
            return _no_device(item)
        if old.misnamed and (ack := self._rename(index, item.name)).code:
            return ack
        return self._do(*links.change(item, old, index, below))

    def _rename(self, index: int, name: str) -> Ack:
        ack = self._do(links.rename(index, name))
        if ack.code != errno.EBUSY:
            return ack
        # What the device loses by being down, the next comparison brings back: the kernel tells of it.
        return self._do(links.set_down(index), links.rename(index, name))

    def _delete(self, name: str) -> Ack:
        index = self._devices.index(name)
        return DONE if index is None else _forgiving(self._do(links.delete(index)))

    def _do(self, *requests: Request) -> Ack:
        """All of ``requests``, whatever becomes of those before; the answer is the first refusal, if any."""
        return next((ack for ack in self._conversation.batch(requests) if ack.code), DONE)

    def _batch(self, ops: Sequence[Op]) -> list[Ack]:
        """A run of operations on what devices have, once more where a device turns out to be another by now."""
        acks = self._attempt(ops)
        again = [place for place, ack in enumerate(acks) if ack.code == errno.ENODEV]
        if again:
            for name in {device(ops[place].item) for place in again}:
                self._devices.forget(name)
            for place, ack in zip(again, self._attempt([ops[place] for place in again]), strict=True):
                acks[place] = ack
        return [_forgiving(ack) if isinstance(op, Cut) else ack for op, ack in zip(ops, acks, strict=True)]

    def _attempt(self, ops: Sequence[Op]) -> list[Ack]:
        indices = [self._devices.index(device(op.item)) for op in ops]
        acks = [DONE if index is not None else _no_device(op.item) for op, index in zip(ops, indices, strict=True)]
        there = [(place, index) for place, index in enumerate(indices) if index is not None]
        answers = self._conversation.batch([_request(ops[place], index) for place, index in there])
        self._step_out_of_shadow([(ops[place], index) for place, index in there], answers)
        moved: list[_Step] = []
        doubtful: list[_Step] = []
        missed: list[_Step] = []
        for (place, index), ack in zip(there, answers, strict=True):
            acks[place] = ack
            match ops[place]:
                case Put(Route() as item, Route() as old) if ack.code in (0, errno.EEXIST):
                    old_index = index if old.dev == item.dev else self._devices.index(old.dev)
                    moved.append(_Step(place, index, item, old, old_index))
                case Put(Route() as item) if ack.code == errno.EEXIST:
                    doubtful.append(_Step(place, index, item, item, index))
                case Cut(Route(stray=True, via=None) as item) if ack.code == errno.ESRCH:
                    missed.append(_Step(place, index, item, item, index))
        for step, ack in zip(missed, self._conversation.batch([_loose_cut(step) for step in missed]), strict=True):
            acks[step.place] = ack
        self._finish_moves(moved, acks)
        self._clear_doubts(doubtful, acks)
        return acks

    def _step_out_of_shadow(self, tried: Sequence[tuple[Op, int]], answers: list[Ack]) -> None:
        """Try again what was refused because the old route leads the new one's gateway through another device.

        IPv6 looks where a gateway is even if it is told (ip6_route_check_nh_onlink, Linux 6.18), and ours lies in the
        very subnet.  A route to the gateway alone, for as long as it takes to add the other, shows it the right device.
        """
        shadowed: list[tuple[int, Route, Route, int]] = []
        for place, ((op, index), ack) in enumerate(zip(tried, answers, strict=True)):
            match op:
                case Put(Route(via=IPv6Address() as via, onlink=True) as item, Route()) if ack.code == errno.EINVAL:
                    shadowed.append((place, item, Route(IPv6Network(via), item.dev), index))
        requests = [
            request
            for _, item, lantern, index in shadowed
            for request in (routes.add(lantern, index), routes.append(item, index), routes.cut(lantern, index))
        ]
        acks = self._conversation.batch(requests)
        for (place, *_), ack in zip(shadowed, acks[1::3], strict=True):
            answers[place] = ack

    def _finish_moves(self, moved: Sequence[_Step], acks: list[Ack]) -> None:
        """The new routes stand behind the old ones: remove those.

        Some are better added now, to a free slot: IPv6 takes two routes that differ in protocol or ``onlink`` alone for
        one, so there the new one could not be added before; and where no old one is found, the new one may stand
        behind somebody else's.
        """
        # With its device the old one has gone as well, and the new one stands alone.
        standing = [(step, step.old_index) for step in moved if step.old_index is not None]
        late = [step for step in moved if step.old_index is None and acks[step.place].code == errno.EEXIST]
        cuts = self._conversation.batch([routes.cut(step.old, index) for step, index in standing])
        for (step, _), ack in zip(standing, cuts, strict=True):
            if acks[step.place].code == errno.EEXIST or ack.code in GONE:
                late.append(step)
            else:
                acks[step.place] = ack
        self._conversation.batch([routes.cut(step.item, step.index) for step in late])
        puts = self._conversation.batch([routes.add(step.item, step.index) for step in late])
        for step, ack in zip(late, puts, strict=True):
            acks[step.place] = ack

    def _clear_doubts(self, doubtful: Sequence[_Step], acks: list[Ack]) -> None:
        """Their slot is taken: by just what was asked for, perhaps."""
        present: dict[tuple[int, int], frozenset[Route]] = {}
        for step in doubtful:
            family = AF_INET if step.item.dst.version == 4 else AF_INET6
            if (step.index, family) not in present:
                present[step.index, family] = self._routes(step.index, step.item.dev, family)
            if step.item in present[step.index, family]:
                acks[step.place] = DONE

    def _routes(self, index: int, dev: str, family: int) -> frozenset[Route]:
        try:
            return frozenset(self._reader.routes(index, dev, family))
        except KernelError:
            return frozenset()  # then what we were told stands


def _request(op: Op, index: int) -> Request:
    put = isinstance(op, Put)
    match op.item:
        case Address() as item:
            return addresses.put(item, index) if put else addresses.cut(item, index)
        case Neighbour() as item:
            return neighbours.put_neighbour(item, index) if put else neighbours.cut_neighbour(item, index)
        case FdbEntry() as item:
            return neighbours.put_fdb(item, index) if put else neighbours.cut_fdb(item, index)
        case Route() as item:
            if not isinstance(op, Put):
                return routes.cut(item, index)
            return routes.add(item, index) if op.old is None else routes.append(item, index)
        case _:
            raise TypeError(f"{op.item} is not something on a device")


def _loose_cut(step: _Step) -> Request:
    return routes.cut_loosely(step.item, step.index)


def _present_name(item: Item) -> str:
    return item.misnamed or item.name if isinstance(item, Link) else device(item)


def _forgiving(ack: Ack) -> Ack:
    return DONE if ack.code in GONE else ack


def _in_the_way(misfit: Misfit) -> Ack:
    return Ack(errno.EEXIST, f"there is a {misfit.name} already, and {misfit.why}: remove it, or rename it")


def _no_device(item: Item) -> Ack:
    return Ack(errno.ENODEV, f"there is no device {device(item)}")
