"""What several suites of this lane are run with."""

from __future__ import annotations

from tests.support.kernel_worlds import each_kernel

world = each_kernel("vxlan")
