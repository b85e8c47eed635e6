"""What is kept of a line between its turns: a hundred octets, where a ``Track`` has a thousand.

In a large cluster nobody is asked nearly always, and nearly everybody is well.

    0   flags     bit 0: there was an agent; from bit 1: turns in which it was silent
    1   turn
    2   best      4 octets: the largest packet that has passed, 0 for none
    6   due       when to look for it again
    14  overlay   89 octets, see ``_TRAIL``
    103 underlay  likewise; left out while it was never used
    Moments and spans are doubles, not a number for what there is none of.  A line that was never asked is no octets.

Rules of this file
  1. A track that was ``resting`` is the same again when it is unfolded: nothing hangs on whether it was.  Only turns
     are numbered anew, which matters while an answer may come, and then it does not rest.
"""

from __future__ import annotations

import struct
from math import isnan, nan
from typing import Final

from pyflannel.probes.outlook import Line
from pyflannel.probes.tally import Tally
from pyflannel.probes.track import NO_AGENT_AFTER, Glance, Track
from pyflannel.probes.trail import Trail, share
from pyflannel.probes.wire import Arrivals

UNASKED: Final = b""

_HEAD: Final = struct.Struct("<BBId")
_TRAIL: Final = struct.Struct("<6dQB8I")
"""heard, rtt, failing, hailed, came, asked; window, turns; number, answered, misses; run, newest and seen of what came
in; newest and seen of what was reported."""
_GLIMPSE: Final = struct.Struct("<2d32xQB")
"""heard, rtt; window, turns: what people see of it."""
_DUE: Final = 6
_OVERLAY: Final = _HEAD.size
_UNDERLAY: Final = _OVERLAY + _TRAIL.size
_UNUSED: Final = Trail()


def fold(track: Track) -> bytes:
    """All of a track that is ``resting``."""
    head = _HEAD.pack(track.agent | track.silent << 1, track.turn, track.mtu.best or 0, track.mtu.due)
    overlay = _packed(track.overlay)
    return head + overlay if track.underlay == _UNUSED else head + overlay + _packed(track.underlay)


def unfold(record: bytes, line: Line, device: int) -> Track:
    """The track of ``line`` again; ``device`` is the largest packet that containers may send."""
    if not record:
        return Track(line, device)
    used = len(record) > _UNDERLAY
    track = Track(line, device, _trail(record, _OVERLAY), _trail(record, _UNDERLAY) if used else None)
    flags, track.turn, best, track.mtu.due = _HEAD.unpack_from(record)
    track.agent, track.silent, track.mtu.best = bool(flags & 1), flags >> 1, best or None
    return track


def restart(record: bytes) -> bytes:
    """As of a track whose ``mtu`` is told to: it may be another device, or another way."""
    return record and record[:_DUE] + bytes(_OVERLAY - _DUE) + record[_OVERLAY:]


def glance(record: bytes, sure: bool) -> Glance:
    """What ``Track.glance`` would be, and much faster; ``sure`` is that of the line."""
    if not record:
        return Glance()
    flags, _, best, _ = _HEAD.unpack_from(record)
    heard, rtt, window, turns = _GLIMPSE.unpack_from(record, _OVERLAY)
    if not sure and isnan(heard) and len(record) > _UNDERLAY:
        heard, rtt, window, turns = _GLIMPSE.unpack_from(record, _UNDERLAY)
    without_agent = bool(flags & 1) and flags >> 1 >= NO_AGENT_AFTER
    return Glance(_known(heard), _known(rtt), share(window, turns), best or None, without_agent)


def _packed(trail: Trail) -> bytes:
    hails, reported = trail.hails, trail.reported
    return _TRAIL.pack(
        *(
            nan if moment is None else moment
            for moment in (trail.heard, trail.rtt, trail.failing, trail.hailed, trail.came)
        ),
        *(trail.asked, trail.window, trail.turns, trail.number, trail.answered, trail.misses),
        *(hails.run, hails.arrivals.newest, hails.arrivals.seen, reported.newest, reported.seen),
    )


def _trail(record: bytes, offset: int) -> Trail:
    fields = _TRAIL.unpack_from(record, offset)
    heard, rtt, failing, hailed, came, asked, window, turns, number, answered, misses, run, *pairs = fields
    newest, seen, *reported = pairs
    return Trail(
        *(number, answered, misses, window, turns, _known(failing), _known(heard), _known(rtt)),
        hails=Tally(run, Arrivals(newest, seen)) if newest else Tally(),
        hailed=_known(hailed),
        came=_known(came),
        reported=Arrivals(*reported),
        asked=asked,
    )


def _known(moment: float) -> float | None:
    return None if isnan(moment) else moment
