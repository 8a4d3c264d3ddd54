"""How a configuration describes simulated instruments, and the errors if it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import pyvisa

import catkit_devices.simulation
from catkit_devices.errors import ConfigurationError, SimulationError
from catkit_devices.simulation import Bench, Instrument, RealClock, VirtualClock, build_library

PLUGIN = r"""
from catkit_devices.hookspecs import hookimpl
from catkit_devices.simulation import Bench

class Lamp:
    def __init__(self, bench, *, colour, watts=10):
        if watts < 0:
            raise ValueError("watts must not be negative")
        self.reply = f"{bench.room} {colour} {watts}\n".encode()

    def feed(self, data):
        return self.reply if data else b""

class Room(Bench):
    def __init__(self, *, clock, seed=0, room="kitchen"):
        super().__init__(clock=clock, seed=seed)
        self.room = room

@hookimpl
def catkit_devices_simulators():
    return {"lamp": Lamp}

@hookimpl
def catkit_devices_benches():
    return {"room": Room}
"""


@pytest.fixture(scope="session")  # it is loaded once in each process that runs tests
def plugins(tmp_path_factory):
    from catkit_devices.drivers import Plugins

    directory = tmp_path_factory.mktemp("plugins")
    (directory / "lamps_of_this_test.py").write_text(PLUGIN)
    return Plugins([directory])


class Silent:
    def __init__(self, bench, *, level=0):
        self.bench = bench

    def feed(self, data):
        return b""


def test_names_of_plugins_are_found_and_options_reach_what_they_name(plugins):
    library = build_library(
        [Instrument("ASRL1::INSTR", "lamp", {"colour": "red"})],
        bench="room",
        bench_options={"room": "cellar"},
        plugins=plugins,
        clock="virtual",
    )
    with pyvisa.ResourceManager(library).open_resource("ASRL1::INSTR", read_termination="\n") as lamp:
        assert lamp.query("?") == "cellar red 10"
    library.resource_manager.close()


@pytest.mark.parametrize(
    ("instruments", "options", "message"),
    [
        ([("ASRL1", "lamb", {})], {}, "there is no simulator 'lamb' (did you mean 'lamp'?)"),
        ([], {"bench": "rom"}, "there is no bench 'rom' (did you mean 'room'?)"),
        ([], {"bench": "room", "bench_options": {"rooom": 1}}, "option 'rooom': bench 'room' has no such option"),
        ([], {"bench": "room", "bench_options": {"clock": 1}}, "option 'clock': bench 'room' has no such option"),
        ([], {"clock": "virtuel"}, "there is no clock 'virtuel'; there are real, virtual (did you mean 'virtual'?)"),
        ([], {"seed": -1}, "a seed must be a whole number from 0 up, got -1"),
        ([("ASRL1", "lamp", {"color": "red"})], {}, "option, expected one of colour, watts (did you mean 'colour'?)"),
        ([("ASRL1", "lamp", {})], {}, "option 'colour': is missing, simulator 'lamp' at ASRL1 needs it"),
        ([("ASRL1", "lamp", {"colour": "", "watts": -1})], {"bench": "room"}, "at ASRL1: watts must not be negative"),
        ([("ASRL1", "x.yaml", {"colour": ""})], {}, "no such option, expected one of device, encoding"),
        ([("ASRL1", "nowhere/x.yaml", {})], {}, "nowhere/x.yaml: cannot be read: No such file or directory"),
        ([("ASRL1", Silent), ("ASRL1", Bench)], {}, "two different simulated instruments are at ASRL1::INSTR: "),
        ([("ASRL1", Bench)], {}, "'Bench' at ASRL1 is not a simulator: it has no method feed(data)"),
        ([("PORT1", Silent)], {}, "'PORT1' is no VISA address"),
        ([("VXI0::3::INSTR", Silent)], {}, "cannot be simulated: its interface carries no messages"),
        ([("ASRL1", Silent, {}, {"lat": 0.1})], {}, "there is no fault 'lat'"),
        ([("ASRL1", Silent, {}, {"late": 1.1})], {}, "the probability of 'late' must be from 0 to 1, got 1.1"),
    ],
)  # fmt: skip
def test_an_error_in_the_arguments_is_one_line(plugins, instruments, options, message):
    with pytest.raises(ConfigurationError) as caught:
        build_library([Instrument(*instrument) for instrument in instruments], plugins=plugins, **options)
    assert message in str(caught.value)


def test_an_instrument_that_two_devices_share_is_built_once():
    library = build_library([Instrument(address, Silent, {"level": 2}) for address in ("GPIB::5", "GPIB0::5::INSTR")])
    assert library.addresses == ("GPIB0::5::INSTR",)


def test_an_existing_bench_can_be_used_and_keeps_its_clock():
    bench = Bench(clock=VirtualClock(), seed=5)
    library = build_library([Instrument("GPIB::5", Silent)], bench=bench, clock="real")
    assert library.instrument("GPIB::5").bench is bench
    assert isinstance(library.bench.clock, VirtualClock)


def test_the_default_clock_is_the_real_one():
    assert isinstance(build_library([]).bench.clock, RealClock)


def test_an_unknown_instrument_is_refused_with_the_nearest():
    library = build_library([Instrument("GPIB::5", Silent)])
    with pytest.raises(SimulationError, match="instrument at GPIB0::6::INSTR; the nearest is GPIB0::5::INSTR"):
        library.instrument("GPIB::6")


def test_streams_of_noise_depend_on_seed_and_name_only():
    one, same, other = (Bench(clock=VirtualClock(), seed=seed) for seed in (1, 1, 2))
    same.rng("another instrument").random()
    first = one.rng("meter").random()
    assert same.rng("meter").random() == first
    assert other.rng("meter").random() != first


def test_a_fast_clock_runs_faster_than_real_time():
    clock = RealClock(speed=1000)
    clock.wait(5.0)
    assert clock.time() >= 5.0


@pytest.mark.parametrize("make", [lambda: RealClock(0), lambda: VirtualClock(-1)])
def test_an_impossible_clock_is_refused(make):
    with pytest.raises(ConfigurationError, match="got"):
        make()


def test_every_exported_name_can_be_imported():
    for name in catkit_devices.simulation.__all__:
        assert getattr(catkit_devices.simulation, name) is not None


def test_a_simulator_may_be_given_as_a_path(tmp_path):
    file = Path(tmp_path / "device.yaml")
    file.write_text('spec: "1.1"\ndevices: {x: {dialogues: [{q: "?", r: "yes"}]}}\n')
    library = build_library([Instrument("ASRL1", file)])
    assert library.instrument("ASRL1").feed(b"?\n") == b"yes\n"


class Broken:
    def __init__(self, bench):
        raise KeyError("wavelength")

    def feed(self, data):
        return b""


def test_an_instrument_that_cannot_be_built_is_named_with_what_went_wrong(tmp_path):
    with pytest.raises(ConfigurationError, match=r"simulator 'Broken' at ASRL2::INSTR: KeyError: 'wavelength'"):
        build_library([Instrument("ASRL2::INSTR", Broken)], clock="virtual")


def test_an_instrument_that_cannot_be_built_leaves_the_others_usable(tmp_path):
    gone = Instrument("ASRL3::INSTR", tmp_path / "gone.yaml")
    library = build_library(
        [Instrument("ASRL1::INSTR", Silent), Instrument("ASRL2::INSTR", Broken), gone], clock="virtual", strict=False
    )
    manager = pyvisa.ResourceManager(library)

    assert library.addresses == manager.list_resources() == ("ASRL1::INSTR",)
    with pytest.raises(ConfigurationError, match=r"ASRL2::INSTR: KeyError: 'wavelength'"):
        manager.open_resource("ASRL2::INSTR")
    with pytest.raises(ConfigurationError, match=r"gone.yaml: cannot be read"):
        library.line("ASRL3::INSTR")
    manager.close()
