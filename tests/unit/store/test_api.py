from __future__ import annotations

from itertools import permutations

import pytest

from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost, Unavailable

FAILURES = [Unavailable, Conflict, HistoryLost, OSError, ValueError]


@pytest.mark.parametrize(("raised", "handled"), list(permutations(FAILURES, 2)))
def test_whoever_handles_one_failure_swallows_no_other(raised: type[Exception], handled: type[Exception]) -> None:
    assert not issubclass(raised, handled)


def test_an_empty_config_is_not_a_missing_one() -> None:
    assert ConfigRecord("here", "") != ConfigRecord("here", None)
