"""The record of a lab: there in one step, gone in one step, and never somebody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyflannel.lab import LabError
from pyflannel.lab.plan import Plan
from pyflannel.lab.process import Process
from pyflannel.lab.record import create, labs_directory, load, names, remove

PLAN = Plan("green", 2, 1, '{"Network": "10.2.0.0/16"}', etcd=True)


def test_lab_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    lab = create(tmp_path, PLAN, user_namespace=True)
    lab.processes["host1"] = Process(17, 4711, 4026532000)
    lab.remarks.append("it rains")
    lab.save()
    assert load(tmp_path, "green") == lab


def test_lab_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, "green") is None


def test_second_lab_of_one_name_is_refused_with_a_hint(tmp_path: Path) -> None:
    create(tmp_path, PLAN, user_namespace=False)
    with pytest.raises(LabError, match="lab down --name green"):
        create(tmp_path, PLAN, user_namespace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["green"]


def test_labs_of_different_names_live_side_by_side(tmp_path: Path) -> None:
    create(tmp_path, PLAN, user_namespace=False)
    create(tmp_path, Plan("blue", 1, 1, "{}"), user_namespace=False)
    assert names(tmp_path) == ["blue", "green"]


def test_removed_lab_leaves_nothing(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    lab = create(labs, PLAN, user_namespace=False)
    (lab.directory / "host1.log").write_text("hello")
    remove(lab)
    assert not labs.exists()
    remove(lab)


def test_removing_one_lab_keeps_the_others(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    green = create(labs, PLAN, user_namespace=False)
    create(labs, Plan("blue", 1, 1, "{}"), user_namespace=False)
    remove(green)
    assert names(labs) == ["blue"]


def test_directory_without_a_record_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "diary.txt").write_text("dear diary")
    with pytest.raises(LabError, match=r"holds no record of a lab .* nothing was touched"):
        load(tmp_path, "green")
    with pytest.raises(LabError, match="already"):
        create(tmp_path, PLAN, user_namespace=False)
    assert (tmp_path / "green" / "diary.txt").read_text() == "dear diary"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"made_by": "me", "plan": {"name": "green"}}', '{"made_by": "flannelctl lab", "plan": "green"}'],
)
def test_record_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "lab.json").write_text(text)
    with pytest.raises(LabError, match="is not a record of a lab"):
        load(tmp_path, "green")


def test_record_of_another_lab_is_refused(tmp_path: Path) -> None:
    create(tmp_path, PLAN, user_namespace=False).directory.rename(tmp_path / "blue")
    with pytest.raises(LabError, match="is not a record of a lab"):
        load(tmp_path, "blue")


def test_record_with_processes_that_make_no_sense_is_refused(tmp_path: Path) -> None:
    lab = create(tmp_path, PLAN, user_namespace=False)
    record = json.loads((lab.directory / "lab.json").read_text())
    for processes in ("[]", '{"host1": {}}', '{"host1": {"pid": 1, "name": "init"}}'):
        (lab.directory / "lab.json").write_text(json.dumps(record | {"processes": json.loads(processes)}))
        with pytest.raises(LabError, match="is not a record of a lab"):
            load(tmp_path, "green")


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot keep a record of the lab in .*file"):
        create(tmp_path / "file", PLAN, user_namespace=False)


def test_labs_are_recorded_where_a_reboot_forgets_them() -> None:
    assert labs_directory(0, {"XDG_RUNTIME_DIR": "/run/user/0"}) == Path("/run/pyflannel-lab")
    assert labs_directory(1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}) == Path("/run/user/1000/pyflannel-lab")


def test_labs_of_a_user_without_a_session_are_recorded_in_his_cache() -> None:
    assert labs_directory(1000, {"HOME": "/home/ann"}) == Path("/home/ann/.cache/pyflannel-lab")
    assert labs_directory(1000, {"HOME": "/home/ann", "XDG_CACHE_HOME": "/c"}) == Path("/c/pyflannel-lab")
