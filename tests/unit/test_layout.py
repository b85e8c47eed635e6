"""The house rules that no other tool checks."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "pyflannel"
UNIT = ROOT / "tests" / "unit"
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST = 400


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if not path.name.startswith("_")],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_every_module_has_its_test_file(module: Path) -> None:
    wanted = UNIT / module.relative_to(SOURCE).with_name(f"test_{module.name}")
    assert wanted.exists(), f"{module.relative_to(ROOT)} has no {wanted.relative_to(ROOT)}"


def test_every_unit_test_has_its_module() -> None:
    for test in UNIT.rglob("test_*.py"):
        if test == Path(__file__):
            continue
        wanted = SOURCE / test.relative_to(UNIT).with_name(test.name.removeprefix("test_"))
        assert wanted.exists(), f"{test.relative_to(ROOT)} tests nothing: {wanted.relative_to(ROOT)} is not there"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_outgrows_its_room(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= LONGEST
