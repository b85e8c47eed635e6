"""How a clean-up is shown; that it cleans is seen in tests/netns/test_plan.py."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from pyflannel.cleanup import Leftovers
from pyflannel.cli.cleanup import cleanup, lines
from pyflannel.firewall.iptables import Fault
from pyflannel.state import Misfit

FAULT = Fault("filter", "FLANNEL-FWD is still there", ("-F FLANNEL-FWD", "-X FLANNEL-FWD"))


def test_what_is_to_go_reads_as_commands() -> None:
    found = Leftovers(
        (Misfit("flannel.1", "it is old", "vxlan"),),
        ((6, (FAULT,)),),
        ("flannel-peers-1",),
        (Path("/run/my files/subnet.env"),),
    )
    assert list(lines(found)) == [
        "# in the firewall for IPv6",
        "# FLANNEL-FWD is still there",
        "ip6tables-restore --noflush <<'END'",
        "*filter",
        "-F FLANNEL-FWD",
        "-X FLANNEL-FWD",
        "COMMIT",
        "END",
        "# in nftables",
        "nft delete table inet flannel-peers-1",
        "# in the kernel",
        "ip link del flannel.1",
        "# files",
        "rm '/run/my files/subnet.env'",
    ]


def test_a_wrong_question_removes_nothing() -> None:
    result = CliRunner().invoke(cleanup, ["--no-defaults", "--yes", "--", "-nope"])
    assert result.exit_code == 1
    assert "-nope" in result.stderr
