"""People read what programs go by."""

from __future__ import annotations

import re

from pyflannel.conditions import ALL
from pyflannel.doctor.checks import CHECKS
from tests.support.troubleshooting import FILE, render


def test_the_document_is_made_of_the_catalogue_and_the_checks() -> None:
    assert FILE.read_text() == render(), "run: python -m tests.support.troubleshooting"


def test_every_name_has_one_section() -> None:
    codes = [*(kind.code for kind in ALL), *(check.code for check in CHECKS)]
    assert re.findall(r"^### (\S+)$", FILE.read_text(), re.M) == codes
    assert len(set(codes)) == len(codes)
