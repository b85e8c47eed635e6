"""Compat §1.1, rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.cli.goflags import HelpRequested, Kind, Parsed, UsageError, parse, read

KINDS: dict[str, Kind] = {"b": bool, "ip-masq": bool, "n": int, "port": int, "s": str, "iface": str}


def refusal(*arguments: str) -> tuple[str, str]:
    """The flag and the message of the error."""
    with pytest.raises(UsageError) as caught:
        parse(list(arguments), KINDS)
    return caught.value.flag, str(caught.value)


def parsed(*arguments: str) -> Parsed:
    return parse(list(arguments), KINDS)


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_one_dash_or_two_and_the_value_after_an_equals_sign_or_as_the_next_argument(dashes: str) -> None:
    assert parsed(f"{dashes}s=x").values == {"s": ["x"]}
    assert parsed(f"{dashes}s", "x").values == {"s": ["x"]}


def test_the_first_equals_sign_ends_the_name() -> None:
    assert parsed("-s=a=b").values == {"s": ["a=b"]}


def test_a_value_may_be_empty() -> None:
    assert parsed("-s=", "-iface", "").values == {"s": [""], "iface": [""]}


@pytest.mark.parametrize("value", ["-b", "--", "-s=y", "-"])
def test_the_next_argument_is_the_value_whatever_it_looks_like(value: str) -> None:
    assert parsed("-s", value).values == {"s": [value]}


@pytest.mark.parametrize("argument", ["---s=x", "--=x", "-=x", "---"])
def test_three_dashes_or_no_name_are_bad_syntax(argument: str) -> None:
    assert refusal(argument)[1].startswith("bad flag syntax: ")


def test_bad_syntax_does_not_repeat_the_value() -> None:
    assert "hunter2" not in refusal("---etcd-password=hunter2")[1]


def test_an_unknown_flag_is_an_error_and_abbreviations_are_unknown() -> None:
    assert refusal("-ifac=x") == ("ifac", "flag provided but not defined: -ifac")
    assert refusal("-nope") == ("nope", "flag provided but not defined: -nope")


def test_a_missing_value_is_an_error() -> None:
    assert refusal("-b", "-s") == ("s", "flag needs an argument: -s")


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
def test_words_for_true(word: str) -> None:
    assert parsed(f"-b={word}").values == {"b": [True]}


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
def test_words_for_false(word: str) -> None:
    assert parsed(f"-b={word}").values == {"b": [False]}


@pytest.mark.parametrize("word", ["", "yes", "no", "on", "tRUE", "2"])
def test_other_words_are_no_booleans(word: str) -> None:
    message = f'invalid boolean value "{word}" for -b: parse error: expected true or false'
    assert refusal(f"-b={word}") == ("b", message)


def test_a_bare_boolean_is_true_and_takes_nothing() -> None:
    assert parsed("-b", "-s", "x").values == {"b": [True], "s": ["x"]}


def test_a_boolean_word_after_a_boolean_ends_the_flags_with_a_warning() -> None:
    got = parsed("-ip-masq", "false", "-s=x", "--port", "1", "-unknown")
    assert got.values == {"ip-masq": [True]}
    assert got.rest == ["false", "-s=x", "--port", "1", "-unknown"]
    assert got.warning == (
        '"false" does not belong to -ip-masq, which is now true: a boolean takes a value only as -ip-masq=…; '
        "it ends the options, so these are ignored: -s --port"
    )


@pytest.mark.parametrize("argument", ["word", "-", ""])
def test_the_first_argument_that_is_no_flag_ends_the_flags_with_a_warning(argument: str) -> None:
    got = parsed("-s=x", argument, "-b")
    assert got.values == {"s": ["x"]}
    assert got.rest == [argument, "-b"]
    assert got.warning == "argument 2 is not a flag; it ends the options, so these are ignored: -b"


def test_a_boolean_word_after_anything_else_is_an_argument_like_others() -> None:
    assert parsed("-b=true", "false").warning == "argument 2 is not a flag; it ends the options"
    assert parsed("-b", "--", "false").warning == "argument 3 is not a flag; it ends the options"


def test_two_dashes_end_the_flags_and_are_dropped() -> None:
    assert parsed("-b", "--") == Parsed({"b": [True]}, [], None)
    assert parsed("-b", "--", "-s=x").rest == ["-s=x"]


def test_the_warning_repeats_no_values() -> None:
    warning = parsed("-b", "hunter2", "-s", "-hunter3", "-s=hunter4").warning
    assert warning is not None
    assert "hunter" not in warning


@pytest.mark.parametrize("argument", ["-h", "--h", "-help", "--help", "-help=false", "-h=1"])
def test_help_is_asked_for_with_any_spelling(argument: str) -> None:
    with pytest.raises(HelpRequested):
        parsed("-b", argument, "-unknown")


def test_help_after_an_error_or_after_the_flags_is_not_seen() -> None:
    assert refusal("-unknown", "-help")[0] == "unknown"
    assert parsed("word", "-help").values == {}


def test_a_repeated_flag_keeps_all_values_in_order() -> None:
    assert parsed("-s=a", "-n=1", "-s", "b").values == {"s": ["a", "b"], "n": [1]}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("10", 10),
        ("+10", 10),
        ("-10", -10),
        ("0x1F", 31),
        ("0X1f", 31),
        ("0o17", 15),
        ("0O17", 15),
        ("017", 15),
        ("-017", -15),
        ("00", 0),
        ("0b11", 3),
        ("0B11", 3),
        ("1_000", 1000),
        ("0x_1F", 31),
        ("0_7", 7),
        ("0b_1_1", 3),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integers_tell_their_base_by_their_prefix(text: str, number: int) -> None:
    assert parsed(f"-n={text}").values == {"n": [number]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "08",
        "0o8",
        "0x",
        "0b2",
        "_1",
        "1_",
        "1__0",
        "0_",
        "--1",
        "0x1_",
        "١",
        "1,000",
    ],
)
def test_what_is_no_integer_to_go_is_an_error(text: str) -> None:
    message = f'invalid value "{text}" for flag -n: parse error: expected a whole number'
    assert refusal(f"-n={text}") == ("n", message)


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "0xFFFFFFFFFFFFFFFF"])
def test_integers_have_64_bits(text: str) -> None:
    assert "value out of range" in refusal("-n", text)[1]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["d", "#x", "#X", "#o", "#b"]))
def test_every_integer_is_read_in_every_base(number: int, spelling: str) -> None:
    assert read(int, format(number, spelling)) == number


@given(st.lists(st.text("-=bns0x1 "), max_size=6))
def test_any_command_line_is_parsed_or_refused(arguments: list[str]) -> None:
    try:
        got = parse(arguments, KINDS)
    except (UsageError, HelpRequested):
        return
    assert list(got.rest) == arguments[len(arguments) - len(got.rest) :]
    assert bool(got.rest) == bool(got.warning)
