from __future__ import annotations

import pytest

from pyflannel.probes.pathmtu import AGAIN, CONFIRM, TRIES, Search

EVERY = 60.0


def look(search: Search, most: int, now: float = 0.0, limit: int = 100) -> int:
    """Try sizes for as long as there is something to try, on a path that lets ``most`` through; how many."""
    for count in range(limit):
        size = search.wants(now)
        if size is None:
            return count
        if size <= most:
            search.passed(size, now, EVERY)
        else:
            search.lost(size, now)
    raise AssertionError("the search does not end")


def test_on_a_path_that_is_wide_enough_one_packet_is_all() -> None:
    search = Search(1450, 68)
    assert look(search, 1500) == 1
    assert (search.best, search.small, search.doubtful) == (1450, False, False)
    assert search.wants(EVERY - 1) is None
    assert search.wants(EVERY) == 1450


@pytest.mark.parametrize("most", [68, 69, 100, 576, 1280, 1399, 1448, 1449])
def test_the_largest_that_passes_is_found_to_the_octet(most: int) -> None:
    search = Search(1450, 68)
    assert look(search, most) < TRIES + 2 * 11
    assert (search.best, search.small) == (most, True)


def test_one_large_packet_that_is_lost_means_nothing() -> None:
    search = Search(1450, 68)
    for _ in range(TRIES - 1):
        search.lost(1450, 0.0)
    assert search.doubtful
    assert not search.small
    search.passed(1450, 0.0, EVERY)
    assert not search.doubtful


def test_a_path_that_is_wide_again_is_noticed_at_the_next_look() -> None:
    search = Search(1450, 68)
    look(search, 1300)
    assert search.wants(AGAIN - 0.1) is None
    assert search.wants(AGAIN) == 1450
    look(search, 1500, AGAIN)
    assert (search.best, search.small) == (1450, False)


def test_a_path_that_is_mended_while_its_width_is_looked_for_is_known_to_be_wide_at_the_end() -> None:
    search = Search(1450, 68)
    for _ in range(TRIES):
        search.lost(1450, 0.0)
    for _ in range(4):
        size = search.wants(0.0)
        assert size is not None
        search.lost(size, 0.0)
    assert search.doubtful
    look(search, 1500)
    assert (search.best, search.small) == (1450, False)


def test_a_path_that_becomes_narrower_still_is_noticed_after_a_while() -> None:
    search = Search(1450, 68)
    look(search, 1300)
    for number in range(1, CONFIRM + 2):
        look(search, 900, number * AGAIN)
    assert search.best == 900


def test_what_was_found_out_of_another_device_is_forgotten() -> None:
    search = Search(1450, 68)
    look(search, 1300)
    search.device = 1250
    search.restart()
    assert look(search, 1300) == 1
    assert (search.best, search.small) == (1250, False)


def test_where_nothing_fits_nothing_is_tried() -> None:
    assert Search(0, 68).wants(100.0) is None
