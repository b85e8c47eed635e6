"""Which of somebody's numbered questions have come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyflannel.probes.wire import NOTHING, Arrivals

_ALL: Final = 0xFFFFFFFF


@dataclass(slots=True)
class Tally:
    """The questions of one peer by one way."""

    run: int = 0
    arrivals: Arrivals = NOTHING

    def note(self, run: int, number: int) -> None:
        """One has come in.  Another run counts from the beginning; what is far behind does not count."""
        if run != self.run:
            self.run, self.arrivals = run, NOTHING
        ahead = number - self.arrivals.newest
        if ahead > 0:
            seen = self.arrivals.seen << ahead if ahead < 32 else 0
            self.arrivals = Arrivals(number, seen & _ALL | 1)
        elif ahead > -32:
            self.arrivals = Arrivals(self.arrivals.newest, self.arrivals.seen | 1 << -ahead)

    def of(self, run: int) -> Arrivals:
        """What there is to report to that run."""
        return self.arrivals if run == self.run else NOTHING
