"""Run all benchmarks, or those named: ``python -m tests.bench [start] [kernel]``.

Each prints a table in Markdown, ready for docs/performance.md.  They never pass or fail: machines differ, and only
ratios within one run mean anything.
"""

from __future__ import annotations

import sys

from tests.bench import kernel, start

BENCHES = {"start": start.main, "kernel": kernel.main}


def main(names: list[str]) -> int:
    """Run the benchmarks called ``names``, all of them if there are none."""
    if unknown := set(names) - set(BENCHES):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in names or BENCHES:
        BENCHES[name]()
    return 0


sys.exit(main(sys.argv[1:]))
