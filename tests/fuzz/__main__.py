"""``make fuzz``: a million hostile records and configurations, and a tenth as many inputs for the other readers.

    FUZZ_RECORDS=N   another number
    FUZZ_SEED=TEXT   the inputs of an earlier run, which printed it

What is found is kept in tests/fuzz/corpus, where the tests of every day find it too, and the exit status is 1.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from hashlib import sha256
from typing import Final

from tests.fuzz import kept
from tests.fuzz.chunks import KINDS, Finding, Result, run

CHUNK: Final = 2000
SHARES: Final = {"records": 0.8, "configs": 0.2}
"""Of the number asked for; each of the other kinds gets ``OTHERS`` of it beside."""
OTHERS: Final = 0.02


def main() -> int:
    """Run, report, and keep what was found."""
    number = int(os.environ.get("FUZZ_RECORDS") or 1_000_000)
    seed = os.environ.get("FUZZ_SEED") or os.urandom(4).hex()
    plan = [(kind, chunk) for kind in KINDS for chunk in range(round(number * SHARES.get(kind, OTHERS) / CHUNK + 0.5))]
    print(f"{number} records and configurations, FUZZ_SEED={seed}, {os.cpu_count()} processes", flush=True)
    began = time.monotonic()
    results: list[Result] = []
    with ProcessPoolExecutor() as pool:
        runs = [pool.submit(run, seed, chunk, kind, CHUNK) for kind, chunk in plan]
        for done in as_completed(runs):
            results.append(done.result())
            if len(results) % 50 == 0:
                print(f"  {len(results)} of {len(plan)} chunks of {CHUNK}", flush=True)
    _table(results, time.monotonic() - began)
    findings = {finding.place: finding for result in results for finding in result.findings}
    for finding in findings.values():
        _report(finding)
    print(f"{len(findings)} faults found")
    return 1 if findings else 0


def _table(results: list[Result], seconds: float) -> None:
    inputs, spent = defaultdict[str, int](int), defaultdict[str, float](float)
    for result in results:
        inputs[result.kind] += result.inputs
        spent[result.kind] += result.seconds
    print(f"{'':10}{'inputs':>10}{'CPU s':>10}{'per CPU s':>12}")
    for kind in KINDS:
        if inputs[kind]:
            print(f"{kind:10}{inputs[kind]:>10}{spent[kind]:>10.1f}{inputs[kind] / max(spent[kind], 0.01):>12.0f}")
    print(f"{sum(inputs.values())} inputs in {seconds:.0f} s, {sum(inputs.values()) / seconds:.0f} a second")


def _report(finding: Finding) -> None:
    path = kept.keep(finding.kind, f"found-{sha256(finding.data).hexdigest()[:12]}", finding.data)
    print(f"\n{finding.error.rstrip()}\nkept as {path}")


if __name__ == "__main__":
    sys.exit(main())
