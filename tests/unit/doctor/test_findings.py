from __future__ import annotations

from collections.abc import Iterator

from pyflannel.doctor.facts import Facts
from pyflannel.doctor.findings import Check, Finding, Sign
from pyflannel.health import Severity


def test_a_finding_is_a_sign_with_what_its_check_says() -> None:
    def look(facts: Facts) -> Iterator[Sign]:
        yield Sign("it is broken", "there are two halves", (("mend", "it"),))
        yield Sign("and this too", "it is in three parts", remedy="Buy another.")

    check = Check("broken", Severity.ERROR, "Something is broken", "It does not work.", "Mend it.", look)
    assert list(check.findings(Facts())) == [
        Finding(
            "broken",
            Severity.ERROR,
            "it is broken",
            "there are two halves",
            "It does not work.",
            "Mend it.",
            (("mend", "it"),),
        ),
        Finding("broken", Severity.ERROR, "and this too", "it is in three parts", "It does not work.", "Buy another."),
    ]
