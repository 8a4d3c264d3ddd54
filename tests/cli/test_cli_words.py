"""What people write for devices, values and arguments means what they mean."""

import pytest

from catkit_devices.cli.words import Target, arguments, literal, member_of, property_value, split, text_of
from catkit_devices.errors import ConfigurationError

DESCRIPTION = {
    "name": "wheel",
    "properties": {"position": {"type": "int", "choices": None}, "speed": {"type": "float", "choices": None}},
    "commands": {"home": {"signature": "(self)"}},
}


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["wheel.position"], Target("wheel", "position", ())),
        (["wheel", "position"], Target("wheel", "position", ())),
        (["wheel"], Target("wheel", None, ())),
        (["wheel.position", "3"], Target("wheel", "position", ("3",))),
        (["wheel", "position", "3"], Target("wheel", "position", ("3",))),
        (["wheel.position=3"], Target("wheel", "position", ("3",))),
        (["wheel", "position=3"], Target("wheel", "position", ("3",))),
        (["laser.current", "50", "mA"], Target("laser", "current", ("50", "mA"))),
        (["wheel.home()"], Target("wheel", "home", ())),
        (["tiptilt", "move", "-3", "y=2"], Target("tiptilt", "move", ("-3", "y=2"))),
    ],
)
def test_both_spellings_of_a_member_are_understood(words, target):
    assert split(words) == target


@pytest.mark.parametrize(
    ("text", "type_", "choices", "value"),
    [
        ("3", "int", None, 3),
        ("3.5", "float", None, 3.5),
        ("-3e-2", "float", None, -0.03),
        ("50 mA", "float", None, "50 mA"),
        ("on", "bool", None, True),
        ("False", "bool", None, False),
        ("007", "str", None, "007"),
        ("fast", "choice", ["slow", "fast"], "fast"),
        ("2", "choice", [1, 2], 2),
        ("[1, 2]", None, None, [1, 2]),
        ("plain words", None, None, "plain words"),
        ("None", None, None, None),
    ],
)
def test_a_value_is_of_the_type_that_the_property_declares(text, type_, choices, value):
    found = property_value(text, {"type": type_, "choices": choices})
    assert found == value
    assert type(found) is type(value)


def test_a_truth_value_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="expected on or off, got 'onn'"):
        property_value("onn", {"type": "bool", "choices": None})


def test_arguments_go_by_place_and_by_name_in_the_types_that_are_declared():
    signature = "(self, x: 'float', y: float = 0.0, *, label: 'str' = '', fast: bool = False) -> 'None'"
    assert arguments(["1", "-2.5"], "move", signature) == ([1, -2.5], {})
    assert arguments(["1", "y=2", "label=3", "fast=on"], "move", signature) == (
        [1], {"y": 2, "label": "3", "fast": True},
    )  # fmt: skip
    assert arguments(["x=y"], "rename", "(self, name: str)") == (["x=y"], {})
    with pytest.raises(ConfigurationError, match=r"home\(self\) takes no more arguments, got 'now'"):
        arguments(["now"], "home", "(self)")


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("properties", "positon", "got 'positon'.*did you mean 'position'"),
        ("properties", "home", "'home' is no property: `call` runs commands"),
        ("commands", "position", "'position' is no command: `get` and `set` are for properties"),
        ("commands", None, "say which command: home"),
    ],
)
def test_a_member_that_is_not_there_is_answered_with_those_that_are(kind, name, text):
    with pytest.raises(ConfigurationError, match=text):
        member_of(DESCRIPTION, kind, name)


def test_values_are_shown_with_their_unit_and_large_arrays_by_what_they_are():
    import numpy as np

    assert text_of(0.5, "W") == "0.5 W"
    assert text_of(float("nan"), "W") == "no measurement (nan)"
    assert text_of(9.9e37, "W") == "no measurement (9.9e+37)"
    assert text_of("up") == "'up'"
    assert text_of(np.arange(3)) == "[0 1 2]"
    assert text_of(np.zeros((20, 30), "u2"), "count") == "uint16 array of shape (20, 30), 0 to 0 count"
    assert literal("{'a': 1}") == {"a": 1}
