from __future__ import annotations

import pytest

from pyflannel.lease.fields import JSON, ConfigError, Fields, read_object


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("null", "null instead of an object"),
        ("[]", "a list instead of an object"),
        ('"udp"', "a text instead of an object"),
        ('{"a":1} {"b":2}', "Extra data"),
        ('{"a":1,}', "double quotes"),
        ('{"a":NaN}', "NaN is not JSON"),
        ('{"a":-Infinity}', "-Infinity is not JSON"),
        ('{"a":' + "[" * 100_000, "nested too deeply"),
        ('{"a":' + "[" * 64 + "]" * 64 + "}", "nested too deeply: expected at most 64"),
        ('{"a":' + "9" * 5000 + "}", "integer"),
        ('\ufeff{"a":1}', "BOM"),
    ],
)
def test_what_is_no_object_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_object(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"VNI":1,"VNI":2}', 2),
        ('{"VNI":1,"vni":2}', 2),
        ('{"vni":1,"VNI":2}', 2),
        ('{"VNI":1,"vni":2,"VNI":3}', 3),
    ],
)
def test_the_last_spelling_of_a_key_counts(text: str, expected: int) -> None:
    assert Fields(read_object(text)).integer("VNI", 0, 0) == expected


@pytest.mark.parametrize("values", [{}, {"x": None}])
def test_missing_and_null_leave_the_default(values: dict[str, JSON]) -> None:
    fields = Fields(values)
    assert fields.integer("x", 7, 0, 9) == 7
    assert fields.flag("x", True) is True
    assert fields.text("x", "usual") == "usual"


def test_both_ends_of_a_range_belong_to_it() -> None:
    fields = Fields({"low": 1, "high": 9})
    assert (fields.integer("low", 5, 1, 9), fields.integer("high", 5, 1, 9)) == (1, 9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "VNI 0 is out of range: expected an integer from 1 to 9"),
        (10, "VNI 10 is out of range: expected an integer from 1 to 9"),
        ("1", 'VNI holds a text ("1"): expected an integer from 1 to 9'),
        (1.0, "VNI holds a number with a fraction or an exponent (1.0): expected an integer from 1 to 9"),
        (True, "VNI holds a boolean (true): expected an integer from 1 to 9"),
        ([1], "VNI holds a list: expected an integer from 1 to 9"),
        ({"secret": 1}, "VNI holds an object: expected an integer from 1 to 9"),
    ],
)
def test_a_wrong_integer_is_refused_by_name(value: JSON, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Fields({"vni": value}).integer("VNI", 1, 1, 9)
    assert str(caught.value) == message


def test_a_range_may_be_open_above() -> None:
    fields = Fields({"a": 10**12, "b": -1})
    assert fields.integer("a", 0, 0) == 10**12
    with pytest.raises(ConfigError, match=r"^b -1 is out of range: expected an integer of at least 0$"):
        fields.integer("b", 0, 0)


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_only_true_and_false_are_switches(value: JSON) -> None:
    with pytest.raises(ConfigError, match=r"^Learning holds .*: expected true or false$"):
        Fields({"Learning": value}).flag("Learning", False)


def test_what_stands_where_a_text_belongs_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        Fields({"PSK": 271828}).text("PSK", "")
    assert str(caught.value) == "PSK holds an integer: expected a text"


def test_a_long_wrong_value_is_cut_short() -> None:
    with pytest.raises(ConfigError) as caught:
        Fields({"VNI": "x" * 1000}).integer("VNI", 1, 1)
    assert len(str(caught.value)) < 200


def test_keys_nobody_read_are_known_as_they_are_spelled() -> None:
    fields = Fields({"VNI": 1, "Prot": 8472, "name": "x"})
    fields.integer("vni", 1, 1)
    fields.ignore("Name")
    assert fields.unread() == ("Prot",)


def test_a_complaint_names_the_key_that_was_probably_meant() -> None:
    fields = Fields({"Prot": 8472, "zzz\n": 1}, "Backend.")
    fields.integer("Port", 0, 0)
    assert fields.complaints() == (
        "Backend.Prot is not a key we know, and has no effect: did you mean Backend.Port?",
        r"Backend.'zzz\n' is not a key we know, and has no effect",
    )


def test_of_very_many_unknown_keys_some_are_named_and_the_rest_counted() -> None:
    complaints = Fields({f"x{number}": 1 for number in range(1000)}, "Backend.").complaints()
    assert len(complaints) == 21
    assert complaints[-1] == "980 more keys of Backend are not known, and have no effect"


def test_asking_whether_a_key_is_there_is_not_reading_it() -> None:
    fields = Fields({"NETWORK": None})
    assert "Network" in fields
    assert "SubnetLen" not in fields
    assert fields.unread() == ("NETWORK",)
