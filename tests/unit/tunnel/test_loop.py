from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import closing, contextmanager

from pyflannel.tunnel.loop import Loop


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def test_a_handler_is_called_while_there_is_something_to_read() -> None:
    calls: list[int] = []
    with closing(Loop()) as loop, pipe() as (out_end, in_end):
        loop.watch(out_end, calls.append)
        loop.turn(0)
        assert calls == []
        os.write(in_end, b"x")
        loop.turn()
        loop.turn()
        assert calls == [select.EPOLLIN] * 2


def test_interest_can_change() -> None:
    calls: list[int] = []
    with closing(Loop()) as loop, pipe() as (_, in_end):
        loop.watch(in_end, calls.append)
        loop.turn(0)
        loop.change(in_end, select.EPOLLOUT)
        loop.turn()
        loop.change(in_end, 0)
        loop.turn(0)
        assert calls == [select.EPOLLOUT]


def test_a_handler_sent_home_in_the_same_turn_is_not_called() -> None:
    calls: list[int] = []
    with closing(Loop()) as loop, pipe() as (one, in_one), pipe() as (two, in_two):

        def first_come(fd: int, other: int) -> None:
            calls.append(fd)
            loop.unwatch(other)

        loop.watch(one, lambda _: first_come(one, two))
        loop.watch(two, lambda _: first_come(two, one))
        os.write(in_one, b"x")
        os.write(in_two, b"x")
        loop.turn()
        assert len(calls) == 1


def test_run_ends_after_the_turn_that_stops_it() -> None:
    with closing(Loop()) as loop, pipe() as (out_end, in_end):
        loop.watch(out_end, lambda _: loop.stop())
        os.write(in_end, b"x")
        loop.run()
