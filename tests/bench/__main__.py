"""Run all benchmarks, or those named: ``python -m tests.bench [--huge] [start] [kernel] …``; ``BENCHES`` lists them.

``--huge`` adds 30,000 peers, which takes some minutes more.

Each prints a table in Markdown, ready for docs/performance.md.  They never pass or fail: machines differ, and only
ratios within one run mean anything.
"""

from __future__ import annotations

import sys

from tests.bench import allocators, events, healing, idle, kernel, scrape, start, tunnel_paths

BENCHES = {
    "start": start.main,
    "kernel": kernel.main,
    "events": events.main,
    "idle": idle.main,
    "healing": healing.main,
    "scrape": scrape.main,
    "allocators": allocators.main,
    "tunnel": tunnel_paths.main,
}
HUGE = "--huge"


def main(words: list[str]) -> int:
    """Run the benchmarks named, all of them if none is."""
    names = [word for word in words if word != HUGE]
    if unknown := set(names) - set(BENCHES):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in names or BENCHES:
        BENCHES[name](HUGE in words)
    return 0


sys.exit(main(sys.argv[1:]))
