"""The halves put together: whom it asks, what it makes of the answer, and what it says in the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.trace.facts import Flow, Hop, Mood, Peer, Point
from pyflannel.trace.follow import Ask, NoAnswer, NotHere, Trace, Verdict, follow, receive
from pyflannel.trace.messages import Half, answer, read_question
from tests.support.crossings import ARRIVED, COMING, FLOW, HOST, PEER, known
from tests.support.one_host import OneHost, one_host

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

PASSES = Hop(Point.CONTAINER, Mood.PASS, "it answers")
ENDS = Hop(Point.FIREWALL, Mood.END, "FORWARD drops it", "let it pass")


@pytest.fixture(scope="module")
def host() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


def saying(half: Half) -> Ask:
    return lambda peer, question: answer(half)


def followed(host: OneHost, ask: Ask, flow: Flow = FLOW) -> Trace:
    return host.see(lambda: follow(known(flow), flow, ask))


def test_it_arrives_where_both_halves_there_and_back_are_well(host: OneHost) -> None:
    found = followed(host, saying(Half((PASSES,), (PASSES,), COMING)))
    assert (found.verdict, found.sentence) == (Verdict.ARRIVES, "It arrives, and so does the answer.")
    assert [(leg.host, leg.back) for leg in found.legs] == [
        ("", False),
        (str(PEER), False),
        (str(PEER), True),
        ("", True),
    ]


@pytest.mark.parametrize("half", [Half(()), Half((PASSES,)), Half((PASSES,), (PASSES,))])
def test_an_answer_that_leaves_the_way_back_out_is_no_arrival(host: OneHost, half: Half) -> None:
    found = followed(host, saying(half))
    assert (found.verdict, "how the answer leaves" in found.sentence) == (Verdict.UNTOLD, True)


def test_the_other_host_is_asked_about_the_packet_as_it_comes_there(host: OneHost) -> None:
    asked: list[bytes] = []

    def ask(peer: Peer, question: bytes) -> bytes:
        asked.append(question)
        return answer(Half((PASSES,)))

    followed(host, ask)
    (raw,) = asked
    question = read_question(raw)
    assert question.flow == FLOW
    assert (question.outer.source, question.outer.destination, question.outer.vni) == (HOST, PEER, 1)


def test_a_packet_that_is_disguised_is_asked_about_as_others_see_it(host: OneHost) -> None:
    asked: list[bytes] = []

    def ask(peer: Peer, question: bytes) -> bytes:
        asked.append(question)
        return answer(Half((PASSES,)))

    host.space.run("iptables -t nat -A POSTROUTING -o flannel.1 -j MASQUERADE")
    followed(host, ask)
    host.space.run("iptables -t nat -F POSTROUTING")
    assert read_question(asked[0]).flow.source == ip_address("10.2.71.0")


def test_what_ends_there_is_told_with_host_hop_and_remedy(host: OneHost) -> None:
    found = followed(host, saying(Half((PASSES, ENDS))))
    assert (found.verdict, found.remedy) == (Verdict.ENDS, "let it pass")
    assert found.sentence == f"It ends on {PEER}, at firewall: FORWARD drops it."


def test_an_answer_that_ends_is_told_as_such(host: OneHost) -> None:
    found = followed(host, saying(Half((PASSES,), (ENDS,))))
    assert found.sentence == f"It arrives, but the answer ends on {PEER}, at firewall: FORWARD drops it."


def test_what_ends_here_asks_nobody(host: OneHost) -> None:
    def nobody(peer: Peer, question: bytes) -> bytes:
        raise AssertionError("asked")

    found = followed(host, nobody, replace(FLOW, destination=ip_address("10.2.99.1")))
    assert found.verdict is Verdict.ENDS
    assert len(found.legs) == 1


@pytest.mark.parametrize(
    "raw", [b"nonsense", answer(Half((), trouble="too many questions at once")), answer(Half((PASSES,), trouble="x"))]
)
def test_an_answer_that_is_none_leaves_the_end_untold(host: OneHost, raw: bytes) -> None:
    found = followed(host, lambda peer, question: raw)
    assert found.verdict is Verdict.UNTOLD
    assert found.legs[0].hops[-1].mood is Mood.PASS


def test_silence_leaves_the_end_untold(host: OneHost) -> None:
    def silence(peer: Peer, question: bytes) -> bytes:
        raise NoAnswer("nobody answers")

    found = followed(host, silence)
    said = f"It leaves this host well, but what happens on {PEER} cannot be told: nobody answers."
    assert (found.verdict, found.sentence) == (Verdict.UNTOLD, said)
    assert found.remedy


def test_where_no_agent_is_the_end_cannot_be_told(host: OneHost) -> None:
    found = followed(host, saying(Half(())), replace(FLOW, destination=PEER))
    assert found.verdict is Verdict.UNTOLD
    assert "by ens33" in found.sentence


def test_containers_of_one_host_are_followed_both_ways_without_asking(host: OneHost) -> None:
    found = followed(host, saying(Half(())), replace(FLOW, destination=ip_address("10.2.71.1")))
    assert found.verdict is Verdict.ARRIVES
    assert [(leg.host, leg.back) for leg in found.legs] == [("", False), ("", True)]


def test_a_source_of_somebody_else_is_refused_with_its_place(host: OneHost) -> None:
    with pytest.raises(NotHere, match=f"on {PEER}"):
        followed(host, saying(Half(())), Flow(ip_address("10.2.41.9"), ip_address("10.2.71.2")))
    with pytest.raises(NotHere, match="no container"):
        followed(host, saying(Half(())), Flow(ip_address("192.0.2.1"), ip_address("10.2.71.2")))


def test_the_other_end_tells_both_its_ways_and_how_the_answer_leaves(host: OneHost) -> None:
    half = host.see(lambda: receive(known(ARRIVED), ARRIVED, COMING))
    assert {hop.mood for hop in (*half.there, *half.back)} == {Mood.PASS}
    assert half.outer is not None
    assert (half.outer.source, half.outer.destination, half.outer.port) == (HOST, PEER, 8472)


def test_the_other_end_tells_nothing_of_a_way_back_from_where_nothing_arrives(host: OneHost) -> None:
    half = host.see(lambda: receive(known(ARRIVED), ARRIVED, replace(COMING, vni=9)))
    assert half.there[-1].mood is Mood.END
    assert (half.back, half.outer) == ((), None)
