from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from pyflannel.probes.errands import ANSWER_WITHIN, AT_ONCE, TRIES, TRY_FOR, Errands, NoAnswer
from pyflannel.probes.wire import LARGEST_ERRAND, LONGEST_BODY, Kind, Packet, decode
from tests.support.loops import run_jumping

HOST, END, STRANGER = IPv4Address("172.16.0.2"), IPv4Address("10.2.1.0"), IPv4Address("192.0.2.1")


async def backwards(words: bytes) -> bytes:
    return words[::-1]


def test_a_question_is_as_large_as_the_largest_answer_and_tried_by_all_ways() -> None:
    sent: list[tuple[str, bytes]] = []

    async def scenario() -> str:
        errands = Errands(None)
        ways = ((HOST, lambda data: sent.append(("host", data))), (END, lambda data: sent.append(("end", data))))
        with pytest.raises(NoAnswer) as caught:
            await errands.ask(7, b"where to?", ways)
        return str(caught.value)

    assert run_jumping(scenario()) == (
        f"asked {HOST} and {END} {TRIES} times in {TRIES * TRY_FOR:g} s, and there was no answer"
    )
    assert [way for way, _ in sent] == ["host", "end", "host", "end"]
    assert {len(data) for _, data in sent} == {LARGEST_ERRAND}
    assert decode(sent[0][1]) == Packet(Kind.ERRAND, 7, 0, 0, body=b"where to?")


@pytest.mark.parametrize(("source", "nonce", "counts"), [(HOST, 7, True), (STRANGER, 7, False), (HOST, 8, False)])
def test_an_answer_counts_if_it_is_one(source: IPv4Address, nonce: int, counts: bool) -> None:
    async def scenario() -> bytes:
        errands = Errands(None)

        def deliver(_data: bytes) -> None:
            for _ in range(2):
                errands.result(Packet(Kind.RESULT, nonce, 0, 0, body=b"there"), source)

        return await errands.ask(7, b"where to?", ((HOST, deliver),))

    if counts:
        assert run_jumping(scenario()) == b"there"
    else:
        with pytest.raises(NoAnswer):
            run_jumping(scenario())


def test_what_the_kernel_says_of_a_question_is_repeated() -> None:
    def refuse(_data: bytes) -> None:
        raise OSError(101, "Network is unreachable")

    with pytest.raises(NoAnswer, match=r"\(sending: Network is unreachable\)"):
        run_jumping(Errands(None).ask(7, b"?", ((HOST, refuse),)))


def test_too_many_questions_of_ours_are_refused_at_once() -> None:
    async def scenario() -> None:
        errands = Errands(None)
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_silent(errands, nonce)) for nonce in range(AT_ONCE)]
            await asyncio.sleep(0)
            with pytest.raises(NoAnswer, match="under way already"):
                await errands.ask(99, b"?", ((HOST, lambda _: None),))
            assert not any(task.done() for task in asked)

    run_jumping(scenario())


async def _silent(errands: Errands, nonce: int) -> None:
    with pytest.raises(NoAnswer, match="no answer"):
        await errands.ask(nonce, b"?", ((HOST, lambda _: None),))


def test_only_large_questions_are_welcome_and_only_where_somebody_answers() -> None:
    question = Packet(Kind.ERRAND, 7, 0, 0, body=b"?")
    assert Errands(backwards).welcome(question, LARGEST_ERRAND)
    assert not Errands(backwards).welcome(question, LARGEST_ERRAND - 1)
    assert not Errands(None).welcome(question, LARGEST_ERRAND)


def test_an_answer_goes_back_with_the_nonce_of_its_question() -> None:
    sent: list[bytes] = []
    question = Packet(Kind.ERRAND, 7, 0, 0, body=b"drawer")
    run_jumping(Errands(backwards).serve(question, sent.append))
    assert [decode(data) for data in sent] == [Packet(Kind.RESULT, 7, 0, 0, body=b"reward")]


def test_an_answer_that_is_too_long_is_cut() -> None:
    async def chatter(_words: bytes) -> bytes:
        return bytes(5000)

    sent: list[bytes] = []
    run_jumping(Errands(chatter).serve(Packet(Kind.ERRAND, 7, 0, 0), sent.append))
    assert len(decode(sent[0]).body) == LONGEST_BODY


def test_few_are_worked_on_at_once_and_none_for_long() -> None:
    async def never(_words: bytes) -> bytes:
        await asyncio.sleep(3600)
        raise AssertionError("too late")

    async def scenario() -> None:
        errands, sent = Errands(never), list[bytes]()
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for nonce in range(AT_ONCE):
                tasks.create_task(errands.serve(Packet(Kind.ERRAND, nonce, 0, 0), sent.append))
            await asyncio.sleep(0)
            assert not errands.welcome(Packet(Kind.ERRAND, 99, 0, 0), LARGEST_ERRAND)
        assert asyncio.get_running_loop().time() - began == pytest.approx(ANSWER_WITHIN)
        assert errands.welcome(Packet(Kind.ERRAND, 99, 0, 0), LARGEST_ERRAND)
        assert sent == []

    run_jumping(scenario())


def test_who_does_not_want_to_answer_says_nothing() -> None:
    async def refuse(_words: bytes) -> bytes:
        raise ValueError("not a question")

    sent: list[bytes] = []
    run_jumping(Errands(refuse).serve(Packet(Kind.ERRAND, 7, 0, 0), sent.append))
    assert sent == []
