"""What is found out about a machine without flannel; real hosts are in tests/netns/test_doctor.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Facts
from pyflannel.doctor.gather import Answer, gather
from pyflannel.settings import Settings
from tests.support.healthy_host import STATUS


def settings(home: Path) -> Settings:
    return Settings(store=f"local:{home}/store.db", subnet_file=str(home / "subnet.env"), state_dir=str(home / "state"))


def gathered(home: Path, answer: Answer) -> Facts:
    return asyncio.run(gather(settings(home), answer, home))


def test_of_a_machine_without_flannel_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    facts = gathered(tmp_path, Answer(None, "nobody listens"))
    assert facts.agent is not None
    assert (facts.agent.status, facts.agent.silence, facts.agent.listens) == (None, "nobody listens", False)
    assert facts.subnet_file is not None
    assert facts.subnet_file.there is False
    assert (facts.network, facts.docker, facts.lacks, facts.routes) == (None, None, None, None)
    assert any("no file" in text for text in facts.unseen)
    assert not list(tmp_path.iterdir())
    assert [each.code for each in examine(facts)] == []


def test_what_the_agent_says_needs_no_store(tmp_path: Path) -> None:
    facts = gathered(tmp_path, Answer(STATUS))
    assert facts.network is not None
    assert (str(facts.network.ipv4), str(facts.network.ipv6)) == ("10.2.0.0/16", "fd00:2::/48")
    assert (facts.network.backend, facts.network.port, facts.underlay) == ("vxlan", 8472, "ens33")
    # Its devices were not told of, and there is no store to say which they should be.
    assert facts.network.devices is None
    assert facts.unseen == () or "root" in facts.unseen[0]


def test_files_are_looked_for_below_the_root(tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/flanneld.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    facts = gathered(tmp_path, Answer(None, "nobody listens"))
    assert facts.agent is not None
    assert facts.agent.unit == str(unit)
