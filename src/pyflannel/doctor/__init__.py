"""What is wrong with this host, as far as the overlay is concerned: small checks, each with evidence and a way out.

Rules of this room
  1. ``gather`` looks, and a check judges: it is a function of ``Facts`` alone, so that every problem can be planted in
     a test without a host that has it.
  2. What could not be found out is None, and None is no problem: a check speaks only of what was seen.
  3. A host where all is well hears of nothing.  What is merely unusual, or what the agent puts right by itself, is not
     reported.
  4. A fix is offered only where it takes nothing away that somebody may want: it is shown as the commands it is.
"""
