"""The catalogue is what programs and people go by."""

from __future__ import annotations

import re

import pytest

from pyflannel.conditions import ALL
from pyflannel.health import Kind


def test_every_code_is_a_word_of_its_own() -> None:
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes) > 10
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.code)
def test_a_condition_says_what_it_means_and_what_to_do(kind: Kind) -> None:
    for text in (kind.means, kind.remedy):
        assert re.fullmatch(r"[A-Z].*\.", text)


def test_no_condition_hides_itself() -> None:
    def hiders(kind: Kind) -> set[Kind]:
        return set(kind.hidden_by).union(*(hiders(above) for above in kind.hidden_by))

    assert not [kind for kind in ALL if kind in hiders(kind)]
