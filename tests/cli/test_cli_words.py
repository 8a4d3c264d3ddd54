"""How devices, values and arguments are written on the command line."""

import enum
import json
import math
from decimal import Decimal
from fractions import Fraction

import astropy.units
import numpy as np
import pint
import pytest
from astropy.nddata import NDData
from astropy.table import Column

from catkit_devices._device.members import describe_command
from catkit_devices.cli.call import _save
from catkit_devices.cli.output import print_json
from catkit_devices.cli.words import Target, arguments, converted, literal, member_of, property_value, split, text_of
from catkit_devices.errors import ConfigurationError, DataError

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


def test_a_word_that_is_not_a_truth_value_is_refused():
    with pytest.raises(ConfigurationError, match="expected on or off, got 'onn'"):
        property_value("onn", {"type": "bool", "choices": None})


@pytest.mark.parametrize("text", ["1e400", "-1E400", "[1, 1e400]", "(1e400,)", "{'a': [-1e400j]}"])
def test_a_number_that_is_too_large_is_not_read_as_infinity(text):
    for kind in ("float", None) if text[0] in "-1" else (None,):
        with pytest.raises(ConfigurationError, match="expected a number, got .*1[eE]400j?, which is too large"):
            converted(text, kind)
    assert converted("inf", "float") == converted("Infinity", None) == math.inf
    assert converted("1e400", "str") == literal("'1e400'") == "1e400"


class Mode(enum.Enum):
    DC = "direct"
    AC = "alternating"


def test_positional_and_named_arguments_get_their_declared_types():
    def move(self, x: "float", y: float = 0.0, *, label: "str" = "", fast: bool = False) -> "None": ...
    def rename(self, name: str): ...
    def home(self): ...

    facts = describe_command(move)
    assert arguments(["1", "-2.5"], "move", facts) == ([1, -2.5], {})
    assert arguments(["1", "y=2", "label=3", "fast=on"], "move", facts) == ([1], {"y": 2, "label": "3", "fast": True})
    assert arguments(["x=y"], "rename", describe_command(rename)) == (["x=y"], {})
    with pytest.raises(ConfigurationError, match=r"home\(self\) takes no more arguments, got 'now'"):
        arguments(["now"], "home", describe_command(home))
    with pytest.raises(ConfigurationError, match="takes no more arguments, got 'on'"):
        arguments(["1", "2", "on"], "move", facts)


def test_a_command_takes_members_of_enumerations_and_any_number_of_arguments():
    def measure(self, mode: Mode, then: Mode | None = Mode.DC, *levels: float, order: Mode = Mode.DC, **more): ...

    facts = describe_command(measure)
    assert arguments(["AC"], "measure", facts) == ([Mode.AC], {})
    assert arguments(["Mode.AC", "order=Mode.DC"], "measure", facts) == ([Mode.AC], {"order": Mode.DC})
    assert arguments(["alternating", "AC", "1", "2.5", "order=AC", "unit=V"], "measure", facts) == (
        [Mode.AC, Mode.AC, 1, 2.5], {"order": Mode.AC, "unit": "V"},
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="measure must be one of 'DC', 'AC', got 'BC'"):
        arguments(["BC"], "measure", facts)
    for other in ("Mode.BC", "Other.AC", "Mode.", "mode.AC"):
        with pytest.raises(ConfigurationError, match=f"measure must be one of 'DC', 'AC', got '{other}'"):
            arguments([other], "measure", facts)


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("properties", "positon", "got 'positon'.*did you mean 'position'"),
        ("properties", "home", "'home' is no property: `call` runs commands"),
        ("commands", "position", "'position' is no command: `get` and `set` are for properties"),
        ("commands", None, "say which command: home"),
    ],
)
def test_an_unknown_member_is_refused_with_the_known_ones(kind, name, text):
    with pytest.raises(ConfigurationError, match=text):
        member_of(DESCRIPTION, kind, name)


OF_SEVERAL = {
    "name": "scope",
    "properties": {
        "timebase": {}, "channels[1].scale": {}, "channels[2].scale": {}, "channels[2].probes['a'].gain": {},
        "level": {"arguments": ["A", "B"]}, "level['A']": {}, "level['B']": {},
    },
    "components": {
        "channels": {"single": False, "keys": [1, 2]},
        "channels[2].probes": {"single": False, "keys": ["a"]},
        "later": {"single": False, "keys": None},
        "trigger": {"single": True, "keys": []},
    },
    "commands": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("channels.5.scale", "device 'scope': there is no channels[5], there are 1, 2"),
        ("channels[5].scale", "device 'scope': there is no channels[5], there are 1, 2"),
        ("channels.x.scale", "device 'scope': there is no channels['x'], there are 1, 2"),
        ("channels.2.probes.b.gain", "device 'scope': there is no channels[2].probes['b'], there are 'a'"),
        ("level.C", "device 'scope': there is no level['C'], there are 'A', 'B'"),
        ("channels.1.scal", "device 'scope': expected a property (channels[1].scale), got 'channels.1.scal' (did you "),
    ],
)
def test_a_component_or_an_argument_that_does_not_exist_is_refused_with_those_that_do(name, text):
    with pytest.raises(ConfigurationError) as error:
        member_of(OF_SEVERAL, "properties", name)

    assert str(error.value).startswith(text)


def test_values_are_shown_with_their_unit_and_large_arrays_by_type_and_shape():
    import numpy as np

    assert text_of(0.5, "W") == "0.5 W"
    assert text_of(float("nan"), "W") == "no measurement (nan)"
    assert text_of(9.9e37, "W") == "no measurement (9.9e+37)"
    assert text_of("up") == "'up'"
    assert text_of(np.arange(3)) == "[0 1 2]"
    assert text_of(np.zeros((20, 30), "u2"), "count") == "uint16 array of shape (20, 30), 0 to 0 count"
    assert text_of(Untold()) == "<Untold without a text: RuntimeError>"
    assert literal("{'a': 1}") == {"a": 1}


class Untold:
    def __repr__(self):
        raise RuntimeError


def test_json_keeps_every_value_whatever_the_keys(capsys):
    print_json({1: "a", "1": "b", "thing": Untold()})

    assert json.loads(capsys.readouterr().out) == {
        "1": "b", "1 (int)": "a", "thing": "<Untold without a text: RuntimeError>",
    }  # fmt: skip


def test_json_has_values_of_every_kind(capsys):
    print_json({
        "quantity": 5 * astropy.units.mV, "pint": pint.get_application_registry().Quantity(5, "mV"),
        "long double": np.longdouble(1.5), "long": 10**5000, "negative": -(10**5000),
        "times": np.array(["2026-01-01", "NaT"], "M8[ns]"), "time": np.datetime64(1, "ns"),
        "spans": np.array([5], "m8[ns]"), "span": np.timedelta64(5, "ns"), "numpy": np.float64(1.5),
        "no": np.float64("nan"), "decimals": [Decimal("1.5"), *map(Decimal, ("NaN", "sNaN", "-Infinity", "1E+999"))],
        "fraction": Fraction(1, 4), "complex": [np.clongdouble(1 + 2j), 1 + 2j],
    })  # fmt: skip

    assert json.loads(capsys.readouterr().out) == {
        "quantity": "5.0 mV", "pint": "5 millivolt", "long double": 1.5, "long": hex(10**5000),
        "negative": hex(-(10**5000)), "times": ["2026-01-01T00:00:00.000000000", None],
        "time": "1970-01-01T00:00:00.000000001", "spans": ["5 nanoseconds"], "span": "5 nanoseconds", "numpy": 1.5,
        "no": None, "decimals": [1.5, None, None, None, None], "fraction": 0.25, "complex": ["(1+2j)", "(1+2j)"],
    }  # fmt: skip


@pytest.mark.parametrize("names", [("allow_pickle", "b"), ("file", "args"), ("kwds", ".."), ("", "b"), ("b", "")])
def test_several_arrays_are_saved_whatever_their_names(tmp_path, names):
    arrays = dict(zip(names, (np.zeros(3), np.ones((2, 2))), strict=True))
    _save(arrays, tmp_path / "out.npz")

    with np.load(tmp_path / "out.npz") as saved:
        assert set(saved) == set(names)
        for name in names:
            np.testing.assert_array_equal(saved[name], arrays[name])


def test_an_array_without_a_unit_is_saved_and_one_with_a_unit_is_not(tmp_path):
    _save(Column([1, 2]), tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").tolist() == [1, 2]

    for array in (Column([1, 2], unit="V"), NDData(np.ones(2), unit="V")):
        with pytest.raises(DataError, match="has a unit"):
            _save([np.ones(1), array], tmp_path / "other.npz")
        with pytest.raises(DataError, match="has a unit"):
            _save([np.ones(1), [array, array]], tmp_path / "other.npz")


def test_the_ending_of_the_file_says_what_is_in_it(tmp_path):
    _save(np.arange(3), tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz") as saved:
        assert saved["arr_0"].tolist() == [0, 1, 2]

    with pytest.raises(DataError, match=r"several.npy is not written: the command returned 2 arrays: an .npz file"):
        _save([np.zeros(2), np.ones(2)], tmp_path / "several.npy")
    assert not (tmp_path / "several.npy").exists()


def test_two_arrays_of_one_name_are_refused_before_there_is_a_file(tmp_path):
    with pytest.raises(DataError, match="two of the arrays that the command returned are called '1'"):
        _save({1: np.zeros(3), "1": np.ones(3)}, tmp_path / "out.npz")

    assert not (tmp_path / "out.npz").exists()
