"""The programs of the host, run inside a namespace of a test."""

from __future__ import annotations

from collections.abc import Sequence

from pyflannel.linux.run import Completed, run
from pyflannel.linux.xtables import Run
from tests.support.namespaces import Namespace


def inside(space: Namespace) -> Run:
    """What runs a program in ``space``."""

    async def execute(argv: Sequence[str], stdin: str | None) -> Completed:
        return await run(space.argv(*argv), stdin)

    return execute
