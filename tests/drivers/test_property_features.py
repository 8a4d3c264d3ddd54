"""Quantities that depend on others, have arguments, are many numbers, are averaged, or take time to settle."""

import enum
import inspect
import math
import threading
import time

import numpy as np
import pytest

from catkit_devices import Component, Components, Control, Device, Measurement, Setting, VisaDevice
from catkit_devices.errors import (
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
)
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.properties import Array
from catkit_devices.simulation import VirtualClock

USB = "USB0::0x1313::0x8078::P0001::INSTR"


class Table(Device):
    """An instrument that is a table of numbers."""

    def _open(self):
        self._values = {
            "range": "10",
            "low": "-1000",
            "kelvin A": "4.2",
            "kelvin B": "77.0",
            "out 1": "0",
            "out 2": "0",
        }
        self._asked = []
        return self

    def _query(self, command):
        self._asked.append(command)
        found = self._values[command.removesuffix("?")]
        return found.pop(0) if isinstance(found, list) else found

    def _write(self, command):
        self._asked.append(command)
        name, _, value = command.rpartition("=")
        self._values[name] = value


class Bench(Table):
    range = Control("range?", "range={}", unit="V", choices=(1.0, 10.0, 100.0), doc="Range.")
    low = Control("low?", "low={}", unit="mV", limits=(-2000, 0), doc="Lowest voltage.")
    voltage = Setting("volt={}", unit="V", limits=("low", "range"), doc="Voltage.")
    kelvin = Measurement("kelvin {key}?", arguments=("A", "B"), unit="K", doc="Temperature at the input.", shared=True)
    output = Control(
        "out {key}?", "out {key}={:d}", arguments={1: 1, "second": 2}, type=int, limits=(0, 5), doc="Level."
    )


@pytest.fixture
def bench():
    with Bench("bench") as device:
        yield device


# --- limits that depend on another property


def test_limits_that_are_other_properties_are_read_before_a_value_is_set(bench):
    bench._asked.clear()
    bench.voltage = 10
    assert bench._asked == ["low?", "range?", "volt=10.0"]

    bench._values["range"] = "1"  # at the front panel
    with pytest.raises(DeviceValueError, match=r"voltage must be -1 to 1 V, got 10.0 V"):
        bench.voltage = 10
    with pytest.raises(DeviceValueError, match=r"voltage must be -1 to 1 V, got -1.5 V"):
        bench.voltage = "-1500 mV"


def test_limits_that_are_other_properties_are_told_as_they_were_read_last(bench):
    def told():
        return bench.describe()["properties"]["voltage"]["limits"]

    assert told() == (-1.0, 10.0)
    bench._values["range"] = "1"  # at the front panel
    bench.voltage = 1
    assert told() == (-1.0, 1.0)
    bench.range = 100
    assert told() == (-1.0, 100.0)


def test_limits_of_the_configuration_narrow_those_that_depend_on_others():
    with Bench("bench", limits={"voltage": (0, 5)}) as device:
        with pytest.raises(DeviceValueError, match="must be 0 to 5 V"):
            device.voltage = 6
        device.range = 1.0
        with pytest.raises(DeviceValueError, match="must be 0 to 1 V"):
            device.voltage = 5


def test_limits_that_are_other_properties_are_not_told_of_a_closed_device():
    assert Bench("bench").describe()["properties"]["voltage"]["limits"] is None


def test_a_limit_that_is_no_measurement_allows_nothing(bench):
    bench._values["low"] = "9.91E37"

    with pytest.raises(
        DeviceValueError, match="voltage cannot be set, because its lowest value is not known: low is nan"
    ):
        bench.voltage = 1


def test_limits_that_name_something_else_than_a_property_are_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"limits of Wrong.x depend on 'rang', which is no property .*mean 'range'\?"):
        type("Wrong", (Bench,), {"x": Control("x?", "x={}", limits=(0, "rang"), doc="X.")})


class Symmetric(Bench):
    named = Setting("named={}", unit="mV", limits=("-range", "range"), doc="Voltage.")
    told = Setting("told={}", unit="V", limits=lambda self: (-0.5 * self.range, 0.5 * self.range), doc="Voltage.")


@pytest.fixture
def symmetric():
    with Symmetric("symmetric") as device:
        yield device


def test_a_limit_may_be_the_negative_of_another_property(symmetric):
    symmetric._asked.clear()
    symmetric.named = -10_000
    assert symmetric._asked == ["range?", "named=-10000.0"], "the range is read once"

    with pytest.raises(DeviceValueError, match="named must be -10000 to 10000 mV, got -10001"):
        symmetric.named = -10_001
    symmetric.range = 1
    assert symmetric.describe()["properties"]["named"]["limits"] == (-1000, 1000)


def test_a_function_that_reads_properties_for_limits_is_called_before_a_value_is_set(symmetric):
    symmetric._asked.clear()
    symmetric.told = -5
    assert [*dict.fromkeys(symmetric._asked)] == ["range?", "told=-5.0"]

    symmetric._values["range"] = "1"  # at the front panel
    with pytest.raises(DeviceValueError, match="told must be -0.5 to 0.5 V, got -5"):
        symmetric.told = -5


def test_limits_for_which_a_function_reads_properties_are_told_without_asking(symmetric):
    symmetric._asked.clear()
    assert symmetric.describe()["properties"]["told"]["limits"] == (-5, 5), "as read when it was opened"
    assert symmetric._asked == []

    symmetric.range = 100

    assert symmetric.describe()["properties"]["told"]["limits"] == (-50, 50)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "much", None, [1.0], "1 A"])
@pytest.mark.parametrize("name", ["voltage", "named", "told"])
def test_a_value_that_no_limits_could_allow_is_refused_without_asking_for_the_limits(symmetric, name, wrong):
    symmetric._asked.clear()
    with pytest.raises(DeviceValueError, match=name):
        setattr(symmetric, name, wrong)

    assert symmetric._asked == []


def test_a_device_whose_limits_a_function_tells_is_made_safe_over_a_new_connection():
    class Output(Component):
        pass

    class Source(Symmetric):
        channels = Components(Output, numbers=lambda self: range(int(self.range)))
        on = Setting("on={:d}", type=bool, doc="Output.")
        _opened = 0

        def _open(self):
            type(self)._opened += 1
            return super()._open()

        def _make_safe(self):
            self.on = False

    device = Source("source")
    device.open()
    device.on = True
    device._life_.lose()

    device.make_safe()

    assert device._values["on"] == "0"
    assert Source._opened == 2, "once at first, and once more after the loss"
    device.close()


def test_limits_of_a_component_may_be_read_from_its_device():
    class Output(Component):
        level = Setting("level={}", limits=lambda self: (0, self.device.range), doc="Level.")

    with type("Supply", (Bench,), {"outputs": Components(Output, numbers=(1, 2))})("supply") as supply:
        supply._asked.clear()
        assert supply.describe()["properties"]["outputs[1].level"]["limits"] == (0, 10)
        assert supply._asked == []
        supply._values["range"] = "1"
        with pytest.raises(DeviceValueError, match=r"outputs\[1\].level must be 0 to 1, got 5"):
            supply.outputs[1].level = 5


def test_a_function_that_tells_limits_cannot_set_anything():
    def sets(self):
        self.range = 100
        return 0, 100

    wrong = type("Wrong", (Bench,), {"x": Setting("x={}", limits=sets, doc="X.")})
    with pytest.raises(TypeError, match="a function that tells limits may read, but it sets range"):
        wrong("wrong").open()


def test_without_its_limits_a_device_is_not_opened_and_a_value_not_set():
    class Wrong(Bench):
        low = Control("low?", "low={}", doc="What the highest current is computed of.")
        current = Setting("current={}", limits=lambda self: (0, 1 / self.low), doc="Current.")

    device = Wrong("wrong")
    with device:
        device._values["low"] = "0"
        with pytest.raises(DeviceProtocolError, match="tells the limits of current has failed: ZeroDivisionError"):
            device.current = 1
        assert "current=1" not in device._asked

    zero = type("Zero", (Wrong,), {"low": Control(lambda self: 0, None, doc="Nothing.")})("zero")
    with pytest.raises(DeviceOpenError, match="tells the limits of current has failed: ZeroDivisionError"):
        zero.open()
    assert zero.state == "closed"


def test_a_function_and_a_name_are_not_mixed_as_limits():
    with pytest.raises(TypeError, match="one function of the device that returns both, got a function as one of"):
        Setting("x={}", limits=(lambda self: 0, "range"), doc="X.")


# --- arguments


def test_a_property_with_arguments_is_read_and_set_by_each(bench):
    assert (bench.kelvin["A"], bench.kelvin["B"]) == (4.2, 77.0)
    bench.output["second"] = 3

    assert bench.output["second"] == 3
    assert bench._asked[-2:] == ["out 2=3", "out 2?"]
    assert list(bench.kelvin) == ["A", "B"]
    assert dict(bench.kelvin) == {"A": 4.2, "B": 77.0}
    with pytest.raises(DeviceValueError, match=r"output\[1\] must be 0 to 5, got 6"):
        bench.output[1] = 6


@pytest.mark.parametrize("wrong", ["C", "a", 1, True, None])
def test_an_unknown_argument_is_an_error_that_lists_the_valid_ones(bench, wrong):
    with pytest.raises(
        DeviceValueError, match=r"there is no kelvin\[.*\] of .*: there are 'A', 'B'|did you mean 'A'\?"
    ):
        _ = bench.kelvin[wrong]


def test_a_property_with_arguments_is_not_set_as_a_whole(bench):
    with pytest.raises(AttributeError, match=r"of 'output' there are several: set output\[1\]"):
        bench.output = 3


def test_each_argument_is_described_as_a_property_of_its_own(bench):
    told = bench.describe()["properties"]

    assert (told["kelvin"]["arguments"], told["kelvin"]["unit"], told["kelvin"]["readable"]) == (["A", "B"], "K", False)
    assert told["kelvin['B']"]["unit"] == "K"
    assert told["output['second']"]["limits"] == (0, 5)
    assert told["kelvin['B']"]["shared"]


def test_functions_get_the_argument_behind_the_device():
    class Sdk(Device):
        gain = Control(
            lambda self, axis: self._gains[axis],
            lambda self, axis, value: self._gains.update({axis: value}),
            arguments={"x": 0, "y": 1},
            type=int,
            doc="Gain.",
        )

        def _open(self):
            self._gains = {0: 1, 1: 2}
            return self

    with Sdk("sdk") as device:
        device.gain["y"] = 7
        assert dict(device.gain) == {"x": 1, "y": 7}


def test_a_configuration_narrows_the_limits_of_all_arguments():
    with Bench("bench", limits={"output": (0, 2)}) as device:
        device.output[1] = 2
        with pytest.raises(DeviceValueError, match="must be 0 to 2"):
            device.output["second"] = 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arguments": ("A",), "get": "K?"}, r"the command 'K\?' has no {key} for the argument"),
        ({"get": "K? {key}"}, r"has {key} for an argument, so it needs arguments=\(...\)"),
        ({"arguments": ("{",), "get": "K? {key}"}, "cannot be part of a command"),
        ({"arguments": (1.5,), "get": "K? {key}"}, "must be a whole number or a text"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_declared(options, said):
    with pytest.raises(TypeError, match=said):
        Measurement(options.pop("get"), doc="K.", **options)


def test_a_proxy_reads_and_sets_properties_with_arguments(runtime):
    with SharedMemoryManager() as manager:
        device = manager.get_object("bench", lambda: Bench("bench"))
        with device:
            assert device.kelvin["B"] == 77.0
            device.output["second"] = 4
            assert dict(device.output) == {1: 0, "second": 4}
            assert device.describe()["properties"]["kelvin"]["arguments"] == ["A", "B"]
            with pytest.raises(DeviceValueError, match=r"there is no kelvin\['C'\]"):
                _ = device.kelvin["C"]


class Module(Component):
    highest = Control("high {self.number}?", "high {self.number}={}", limits=(0, 9), unit="V", doc="Highest voltage.")
    level = Control(
        "level {self.number} {key}?",
        "level {self.number} {key}={}",
        arguments=("x", "y"),
        limits=(0, "highest"),
        unit="V",
        doc="Level of the axis.",
    )


class Crate(Table):
    modules = Components(Module, numbers=(1, 2))

    def _open(self):
        super()._open()
        self._values = {"high 1": "5", "high 2": "2", "level 2 y": "1.5"}
        return self


def test_components_have_properties_with_arguments_too_also_through_a_proxy(runtime):
    with Crate("crate") as crate:
        use(crate)
    with SharedMemoryManager() as manager:
        crate = manager.get_object("crate", lambda: Crate("crate"))
        with crate:
            use(crate)


def use(crate):
    assert crate.modules[2].level["y"] == 1.5
    crate.modules[1].level["x"] = 4
    with pytest.raises(DeviceValueError, match=r"modules\[2\].level\['x'\] must be 0 to 2 V, got 4"):
        crate.modules[2].level["x"] = 4


# --- arrays


def test_an_array_is_many_numbers_of_one_reply(bench):
    class Spectrum(Bench):
        counts = Measurement(
            "counts?", type=Array(shape=(2, 2), scale=lambda self: self._scale), unit="V", doc="Counts."
        )

    with Spectrum("spectrum") as device:
        device._scale = 0.5
        device._values["counts"] = "1, 2,9.91E37,#H10"

        found = device.counts
        assert found.shape == (2, 2)
        np.testing.assert_array_equal(found, [[0.5, 1.0], [math.nan, 8.0]])
        told = device.describe()["properties"]["counts"]
        assert (told["type"], told["shape"], told["dtype"], told["unit"]) == ("array", (2, 2), "text", "V")
        device._values["counts"] = "1,2,3"
        with pytest.raises(DeviceProtocolError, match="counts: 4 numbers were expected, got 3"):
            _ = device.counts


class Scope(VisaDevice):
    trace = Measurement("CURV?", type=Array(">i2", scale=0.5, offset=1), unit="V", doc="Waveform.")


def test_an_array_may_come_in_a_binary_block(serve, script):
    library = serve(USB, script, replies={b"*IDN?": b"Scope\n", b"CURV?": [b"#14\x00\x02\xff\xfe\n", b"#13abc\n"]})

    with Scope("scope", address=USB, visa_library=library) as device:
        assert device.trace.tolist() == [2.0, 0.0]
        with pytest.raises(DeviceProtocolError, match="trace: numbers of 2 bytes were expected, got 3 bytes"):
            _ = device.trace


# --- averaging


def averaged(readings, count=3):
    class Averaged(Bench):
        level = Measurement("level?", unit="V", average=count, doc="Level.")

    device = Averaged("averaged")
    device.open()
    device._values["level"] = readings
    return device


def test_an_average_is_the_mean_of_so_many_readings():
    device = averaged(["1", "2", "6", "100"])

    assert device.level == 3.0
    assert device._asked[-3:] == ["level?"] * 3


def test_the_average_of_equal_readings_is_that_reading():
    assert averaged(["0.1"] * 10, 10).level == 0.1


def test_the_average_is_no_measurement_if_one_of_the_readings_is_none():
    assert math.isnan(averaged(["1", "9.91E37", "6"]).level)
    assert averaged(["1", "9.9E37", "6"]).level == math.inf


def test_an_average_can_be_cancelled_and_lets_shared_reads_in(runtime):
    class Slow(Bench):
        level = Measurement("level?", unit="V", average=10_000, doc="Level.")

        def _query(self, command):
            time.sleep(0.002)
            return "1" if command == "level?" else super()._query(command)

    with SharedMemoryManager() as manager:
        device = manager.get_object("slow", lambda: Slow("slow"))
        ended = []

        def read():
            try:
                _ = device.level
            except BaseException as error:
                ended.append(error)

        with device:
            reader = threading.Thread(target=read)
            reader.start()
            while device.mutex.holder is None:
                time.sleep(0.001)
            assert [device.kelvin["A"] for _ in range(5)] == [4.2] * 5
            assert reader.is_alive()
            manager.break_mutex("slow", "enough")
            reader.join(10)
        assert len(ended) == 1


@pytest.mark.parametrize("options", [{"type": int, "average": 2}, {"average": 0}, {"type": str, "average": 2}])
def test_a_quantity_that_has_no_mean_cannot_be_averaged(options):
    with pytest.raises(TypeError, match="average is a number of readings, of a quantity of type float or Array"):
        Measurement("?", doc="X.", **options)


# --- settling


class Stage(Bench):
    """A stage that needs five questions to get there."""

    position = Setting(
        "pos={}", unit="mm", settles_within=5.0, until=lambda self, value: self._is_at(value), doc="Position."
    )

    def _is_at(self, value):
        self._questions = getattr(self, "_questions", 0) + 1
        return value < 100 and self._questions >= 5


def stage(cls=Stage):
    device = cls("stage")
    device._clock_ = VirtualClock()
    device.open()
    return device


def test_setting_a_value_returns_when_it_has_been_reached():
    device = stage()
    device.position = 3

    assert (device._asked[-1], device._questions) == ("pos=3.0", 5)


def test_a_value_that_is_not_reached_in_time_is_an_error():
    device = stage()

    with pytest.raises(DeviceTimeoutError, match="position has not settled at 100.0 mm in 5 s"):
        device.position = 100


class Oven(VisaDevice):
    io_timeout = 0.5

    temperature = Control("T?", "T {}", unit="degC", settles_within=20.0, doc="Temperature.")
    asked = Setting("A {}", unit="degC", settles_within=20.0, until="*OPC?", doc="Temperature.")
    waited = Setting("W {}", unit="degC", settles_within=20.0, until="*WAI", doc="Temperature.")


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("temperature", [b"*ESR?", b"T 3.0", b"*OPC", b"*ESR?", b"*ESR?"]),
        ("asked", [b"A 3.0", b"*OPC?"]),
        ("waited", [b"W 3.0", b"*WAI;*ESR?"]),
    ],
)
def test_an_instrument_is_asked_as_declared_whether_it_has_settled(serve, script, name, sent):
    replies = {b"*IDN?": b"Oven\n", b"*ESR?": [b"128\n", b"0\n", b"1\n"], b"*OPC?": b"1\n", b"*WAI;*ESR?": b"0\n"}
    library = serve(USB, script, replies=replies)

    with Oven("oven", address=USB, visa_library=library) as device:
        setattr(device, name, 3)

    assert library.instrument(USB).sent[1:] == sent


def test_an_error_that_comes_while_it_settles_is_an_error(serve, script):
    library = serve(USB, script, replies={b"*IDN?": b"Oven\n", b"*WAI;*ESR?": b"16\n"})

    oven = Oven("oven", address=USB, visa_library=library)
    with oven as device, pytest.raises(DeviceProtocolError, match="refused, or failed: execution error"):
        device.waited = 3


def test_settling_can_be_cancelled(runtime):
    class Never(Bench):
        position = Setting("pos={}", settles_within=3600.0, until=lambda self, value: False, doc="Position.")

    with SharedMemoryManager() as manager:
        device = manager.get_object("never", lambda: Never("never"))
        ended = []

        def move():
            try:
                device.position = 3
            except BaseException as error:
                ended.append(error)

        with device:
            mover = threading.Thread(target=move)
            mover.start()
            while device.mutex.holder is None:
                time.sleep(0.001)
            assert device.kelvin["A"] == 4.2  # shared reads run meanwhile
            manager.break_mutex("never", "enough")
            mover.join(10)
        assert len(ended) == 1


def test_settles_within_needs_a_function_if_the_device_is_not_a_visa_device():
    class Wrong(Bench):
        position = Setting("pos={}", settles_within=1.0, doc="Position.")

    with Wrong("wrong") as device, pytest.raises(TypeError, match="position .*is no VisaDevice, so it needs until="):
        device.position = 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"until": "*OPC"}, "until=... needs settles_within=..."),
        ({"settles_within": 0}, "settles_within must be a number of seconds above 0"),
        ({"settles_within": 1, "until": "*OPC!"}, r"until must be a function .*got '\*OPC!'"),
    ],
)
def test_invalid_arguments_for_settling_are_refused_where_they_are_declared(options, said):
    with pytest.raises(TypeError, match=said):
        Setting("X {}", doc="X.", **options)


# --- the words of other frameworks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"values": [1, 2]}, r"no values=..., but limits=\(lowest, highest\) for a range, choices=\(...\) for a list"),
        ({"validator": max}, "limits="),
        ({"vals": None}, "limits="),
        ({"map_values": True}, "choices={value: what stands for it on the wire}"),
        ({"get_cmd": "X?"}, "the command that reads it, first"),
        ({"set_cmd": "X {}"}, "the command that sets it"),
        ({"get_parser": float}, "type=..., a function from the reply to the value"),
        ({"get_process": float}, "type=..., a function from the reply to the value"),
        ({"set_process": float}, "a function of the device and the value"),
        ({"check_set_errors": True}, "ScpiDevice with errors = 'always'"),
        ({"dynamic": True}, r"limits=\(0, 'other_property'\)"),
        ({"docs": "X."}, "doc="),
        ({"label": "X"}, "doc="),
        ({"cast": int}, "type=..., a function from the reply to the value"),
        ({"preprocess_reply": str.strip}, "type=..., a function from the reply to the value"),
        ({"command_process": str}, "a function of the device and the value"),
        ({"scale": 1e3}, "a function of the device and the value"),
        ({"separator": ";"}, r"type=Array\(...\), for a reply with several numbers"),
        ({"step": 0.1}, "a method that goes there in steps"),
        ({"units": "V"}, "unit="),
        ({"readonly": True}, "Measurement for what is only read"),
        ({"mean": 5}, "average=..., a number of readings"),
        ({"minimum": 0}, "limits="),
        ({"settling_time": 5}, "settles_within=..., in seconds"),
        ({"tolerance": 0.1}, "until=..., a function of the device and the value"),
        ({"channels": (1, 2)}, r"arguments=\('A', 'B'\), with {key} in the command"),
        ({"map_values": True, "values": {"a": 1}}, "choices={value: what stands for it on the wire}"),
    ],
)
@pytest.mark.parametrize("given", [("X?", "X {}"), ()])
def test_a_word_of_another_framework_is_an_error_that_names_ours(options, said, given):
    with pytest.raises(TypeError, match=f"a control has no {next(iter(options))}=..., but .*{said[-30:]}|{said}"):
        Control(*given, **options)


WORDS_OF_QCODES = (
    "initial_cache_value initial_value inter_delay docstring get_cmd get_parser label max_val_age name offset "
    "post_delay scale set_cmd set_parser snapshot_exclude snapshot_get snapshot_value step val_mapping vals"
)
"""Arguments of its Parameter."""


@pytest.mark.parametrize("declare", [Control, Measurement, Setting])
def test_every_word_of_pymeasure_and_qcodes_is_an_error_or_means_the_same_here(declare):
    from pymeasure.instruments.common_base import CommonBase  # slow, and for this test only

    foreign = {
        name
        for function in (CommonBase.control, CommonBase.measurement, CommonBase.setting)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    for word in sorted(foreign | {*WORDS_OF_QCODES.split()}):
        with pytest.raises(TypeError, match=f"has no {word}=..., (but|because) "):
            declare("X?", **{word: 1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": (0, 5)}, r"a control has no limit=...: did you mean limits=...\?"),
        ({"colour": "red"}, r"a control has no colour=...: it has get, set, type, unit, limits"),
        ({"limits": 5}, r"limits are the lowest and the highest value, \(0, 5\), .* got 5"),
        ({"limits": (0, 1, 2)}, r"limits are .* got \(0, 1, 2\)"),
        ({"limits": "range"}, "limits are .* got 'range'"),
        ({"limits": {"min": 0, "max": 3}}, "limits are .* got {'min'"),
        ({"settles_within": "5 s"}, "settles_within must be a number of seconds above 0, got '5 s'"),
        ({"average": 2.5}, "average is a number of readings.*got 2.5"),
        ({"average": "5"}, "average is a number of readings.*got '5'"),
        ({"choices": "AB"}, r"choices and arguments are several, such as \('A', 'B'\), got the text 'AB'"),
        ({"choices": ()}, r"there must be at least one choice, got \(\)"),
        ({"choices": {}}, "there must be at least one choice, got {}"),
        ({"choices": (1, 2, 1)}, "the choice 1 is named twice"),
        ({"choices": enum.Enum("Mode", [])}, "there must be at least one choice, got <enum 'Mode'>"),
        ({"type": enum.Enum("Mode", [])}, "there must be at least one choice, got <enum 'Mode'>"),
        ({"type": enum.Flag("Lamps", [])}, "Lamps has no flags"),
        ({"arguments": ()}, r"there must be at least one argument, got \(\)"),
        ({"arguments": ("A", "B", "A")}, "the argument 'A' is named twice"),
        ({"type": list}, r"type=list does not make numbers of the text of a reply; type=Array\(\) does"),
        ({"type": np.array}, "type=array does not make numbers of the text of a reply"),
        ({"type": Array}, r"the type of an array is Array\(...\), got the class"),
    ],
)
def test_what_makes_no_sense_in_a_declaration_is_an_error_that_says_what_does(options, said):
    with pytest.raises(TypeError, match=said):
        Control("X?", "X {}", doc="X.", **options)


@pytest.mark.parametrize(
    ("kind", "declared"), [("control", ["X?", "X {}"]), ("measurement", ["X?"]), ("setting", ["X {}"])]
)
def test_a_declaration_without_a_doc_says_that_one_is_needed(kind, declared):
    with pytest.raises(TypeError, match=f"a {kind} needs doc=..., a text that says what it is"):
        {"control": Control, "measurement": Measurement, "setting": Setting}[kind](*declared)


@pytest.mark.parametrize("limits", [(0, "x"), ("-x", 5)])
def test_limits_that_depend_on_the_value_itself_are_refused_when_the_class_is_made(limits):
    with pytest.raises(TypeError, match=r"the limits of Wrong.x depend on itself"):
        type("Wrong", (Bench,), {"x": Control("X?", "X {}", limits=limits, doc="X.")})


def test_arguments_that_are_one_text_are_refused():
    with pytest.raises(TypeError, match="are several, .* got the text 'AB'"):
        Measurement("X? {key}", arguments="AB", doc="X.")


def test_limits_of_another_kind_of_unit_are_refused_when_the_class_is_made():
    volts = Control("X?", "X {}", unit="V", limits=(0, "most"), doc="X.")
    with pytest.raises(TypeError, match="the limits of Wrong.x are in V, and depend on 'most', which is in A"):
        type("Wrong", (Bench,), {"x": volts, "most": Control("M?", "M {}", unit="A", doc="M.")})
    with pytest.raises(TypeError, match="depend on '5 V', .*a limit that is a number is written without a unit"):
        type("Wrong", (Bench,), {"x": Control("X?", "X {}", unit="V", limits=(0, "5 V"), doc="X.")})


# --- the same quantity with other arguments


def test_a_quantity_is_declared_again_with_other_arguments():
    class Model(Bench):
        x = Control("X?", "X {:.1f}", unit="V", limits=(0, 30), doc="Voltage.", shared=True)

    class Larger(Model):
        x = Model.x.replace(limits=(0, 60), unit="mV")

    assert Larger.x is not Model.x
    assert (Model.x.limits(), Larger.x.limits()) == ((0, 30), (0, 60))
    with Larger("larger") as larger:
        larger.x = "0.05 V"
        assert larger._asked[-1] == "X 50.0"
        with pytest.raises(DeviceValueError, match="x must be 0 to 60 mV, got 61"):
            larger.x = 61
    with pytest.raises(TypeError, match="did you mean limits="):
        Model.x.replace(limit=(0, 60))


def test_a_doc_without_its_name_is_an_error_that_says_so():
    with pytest.raises(TypeError, match="the doc of a control must be given by name: doc='Amplitude.'"):
        Control("X?", "X {}", "Amplitude.")
    with pytest.raises(TypeError, match="the doc of a measurement must be given by name: doc='Amplitude.'"):
        Measurement("X?", "Amplitude.")
