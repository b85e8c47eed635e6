"""The C twin under AddressSanitizer on damaged packets, with the Python twin beside it as a witness.

    python -m tests.support.tunnel_fuzz COUNT [SEED]

Every tenth packet goes to both twins, for Python is slow; the rest only looks for reads and writes out of bounds.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from pyflannel.tunnel.batch import PYTHON
from tests.support.tunnel_packets import ACK, PSH, TIMESTAMPS, Flow, plain
from tests.support.tunnel_twin import build

FLOWS = [
    Flow(source, destination, tcp_options=options, flags=ACK | PSH)
    for source, destination in (("10.1.1.2", "10.1.2.3"), ("fd00::1:2", "fd00::2:3"))
    for options in (b"", TIMESTAMPS)
]
PAYLOAD = bytes(range(256)) + bytes(77)
LIKELY = (0, 1, 4, 5, 0x45, 0x4F, 0x60, 0x80, 255)


def frames() -> list[bytes]:
    """What a TUN device hands over."""
    made = []
    for flow in FLOWS:
        made += [flow.tcp_super(PAYLOAD, 100), flow.udp_super(PAYLOAD, 60), flow.partial(flow.udp(PAYLOAD), 17)]
        made.append(plain(flow.tcp(PAYLOAD)))
    return made


def batches() -> list[tuple[bytes, int]]:
    """What a socket hands over."""
    cut = [flow.tcp_segments(PAYLOAD, size) for flow in FLOWS for size in (50, 101)]
    return [(b"".join(segments), len(segments[0])) for segments in cut]


def damaged(source: random.Random, data: bytes) -> bytes:
    """A few octets changed, mostly among the headers; perhaps truncated."""
    made = bytearray(data)
    for _ in range(source.choice((0, 1, 1, 2, 4, 8))):
        at = source.randrange(source.choice((len(made), 80, 40))) % len(made)
        made[at] = source.choice((*LIKELY, source.randrange(256)))
    if source.random() < 0.3:
        del made[source.randrange(len(made) + 1) :]
    return bytes(made)


def run(library: str, count: int, seed: int) -> None:
    """Fuzz the extension in this file; the sanitizer ends the process at the first fault."""
    loader = importlib.machinery.ExtensionFileLoader("_fast", library)
    spec = importlib.util.spec_from_file_location("_fast", library, loader=loader)
    assert spec is not None
    twin = importlib.util.module_from_spec(spec)
    loader.exec_module(twin)
    source, read, received = random.Random(seed), frames(), batches()
    for number in range(count):
        if number % 2:
            frame = damaged(source, source.choice(read))
            runs = twin.segment(frame)
            assert number % 10 != 1 or runs == PYTHON.segment(frame), frame.hex()
        else:
            data, size = source.choice(received)
            data, size = damaged(source, data), source.choice((size, size, size, size + 1, size - 1, 0, 1, 19))
            found = twin.coalesce(data, size)
            assert number % 10 != 0 or found == PYTHON.coalesce(data, size), (data.hex(), size)
    print(f"{count} packets, seed {seed}: nothing found")


def main(words: list[str]) -> int:
    """Build the extension with the sanitizer, and run in a process that has it loaded from the start."""
    if len(words) == 3:
        run(words[0], int(words[1]), int(words[2]))
        return 0
    count, seed = words[0], words[1] if len(words) > 1 else str(random.SystemRandom().randrange(1 << 32))
    with tempfile.TemporaryDirectory() as place:
        library = Path(place, "_fast.so")
        assert build(library, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"), "no compiler"
        names = [
            subprocess.run(
                ["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        # With Python's own allocator, small buffers would lie side by side, and a read too far would hit the next one.
        env = os.environ | {"LD_PRELOAD": " ".join(names), "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0"}
        again = [sys.executable, "-m", "tests.support.tunnel_fuzz", str(library), count, seed]
        return subprocess.run(again, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
