"""People read what programs go by."""

from __future__ import annotations

from tests.support.troubleshooting import FILE, render


def test_the_document_is_made_of_the_catalogue() -> None:
    assert FILE.read_text() == render(), "run: python -m tests.support.troubleshooting"
