"""Functions whose body would not run when they are called are refused, and so are results whose work is not done."""

import asyncio
import concurrent.futures
import contextlib
import functools
import multiprocessing.pool
import sys
import threading
import types

import pytest

from catkit_devices import VisaDevice
from catkit_devices._base.deferred import Watched, deferred_kind, done, finished
from catkit_devices.device import Device
from catkit_devices.errors import DeviceFaultError, PluginError
from catkit_devices.multiprocessing import MutexedDict, Process
from catkit_devices.properties import Control, Measurement, Setting
from catkit_devices.simulation import Instrument, YamlInstrument, build_bench, build_library
from catkit_devices.testbed import Experiment
from catkit_devices.testbed.safety.check import PluginTest
from catkit_devices.testing import DriverConformance

REFUSED = "whose body does not run when it is called: write it as a plain function"
NOT_DONE = "whose work is not done"


async def coroutine(*_):
    return 1


async def asynchronous_generator(*_):
    yield 1


def generator(*_):
    yield 1


def plain(*_):
    return 1


class Called:
    async def __call__(self, *_):
        return 1


class Holder:
    method = coroutine

    @classmethod
    async def of_the_class(cls): ...


KINDS = {
    "coroutine": coroutine,
    "generator": generator,
    "asynchronous generator": asynchronous_generator,
    "context manager": contextlib.contextmanager(generator),
    "asynchronous context manager": contextlib.asynccontextmanager(asynchronous_generator),
}
every_kind = pytest.mark.parametrize("function", KINDS.values(), ids=list(KINDS))


@pytest.mark.parametrize(
    "function",
    [
        *KINDS.values(), functools.partial(coroutine, 1), Called(), Holder().method, Holder.of_the_class,
        staticmethod(generator), classmethod(coroutine), functools.wraps(plain)(coroutine),
    ],
)  # fmt: skip
def test_coroutines_and_generators_are_recognised(function):
    assert deferred_kind(function)


@functools.wraps(coroutine)
def runs_it():
    return asyncio.run(coroutine())


@pytest.mark.parametrize(
    "value", [plain, functools.partial(plain), runs_it, Holder, Called, len, float, "pos?", None, 3]
)
def test_all_other_functions_are_accepted(value):
    assert deferred_kind(value) is None


@pytest.mark.parametrize("make", [coroutine, generator, asynchronous_generator])
def test_a_result_that_is_a_coroutine_or_generator_is_refused(make):
    with pytest.raises(TypeError, match=f"it returned a .*{NOT_DONE}"):
        finished(make(), "it")


@pytest.mark.parametrize("inside", [lambda one: [1, one], lambda one: (one,), lambda one: {"a": [{"b": one}]}])
def test_a_result_with_a_coroutine_in_it_is_refused(inside):
    with pytest.raises(TypeError, match=f"it returned a (list|tuple|dict) with a coroutine in it, {NOT_DONE}"):
        finished(inside(coroutine()), "it")


@pytest.mark.parametrize("function", [plain, Holder().method, len, functools.partial(plain)])
def test_a_function_that_was_not_called_is_no_result_of_one_that_is_called_for_its_effect(function):
    assert finished(function, "it") is function
    for result in (function, [function], {"a": function}):
        with pytest.raises(TypeError, match="it returned a .*, which was not called"):
            done(result, "it")


def test_all_other_results_are_accepted():
    endless = []
    endless.append(endless)
    for value in (None, [1], endless, Holder, object(), {"a": (1, "b")}, b"", set()):
        assert done(value, "it") is value


# --- coroutines that are dropped ---


async def switched_off():
    pass


dropped = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@dropped
def test_a_coroutine_that_is_made_and_dropped_is_noticed_with_its_place_each_time():
    for _ in range(2):
        with pytest.raises(TypeError, match=r"it has .* \(switched_off, line \d+ of .*\.py\)"), Watched("it"):
            switched_off()


@dropped
def test_only_coroutines_of_this_block_and_thread_count():
    made = [coroutine()]
    with Watched("it"):
        made.clear()
        thread = threading.Thread(target=coroutine)
        thread.start()
        thread.join()
    coroutine()


def test_coroutines_that_run_or_are_closed_are_not_dropped():
    async def steps():
        task = asyncio.ensure_future(coroutine())
        asyncio.ensure_future(coroutine()).cancel()
        return await task + await asyncio.wait_for(coroutine(), 5.0)

    with Watched("it"):
        assert asyncio.run(steps()) == 2
        coroutine().close()
        kept = coroutine()
    kept.close()


def test_python_warns_of_coroutines_elsewhere_as_before():
    with Watched("it"):
        pass
    with pytest.warns(RuntimeWarning, match="^coroutine 'switched_off' was never awaited$") as told:
        switched_off()
    assert told[0].filename == __file__


@dropped
def test_the_error_of_a_block_is_raised_as_it_is_and_blocks_may_be_nested():
    with pytest.raises(KeyError), Watched("it"):
        coroutine()
        raise KeyError
    with pytest.raises(TypeError, match="outer has"), Watched("outer"):
        with pytest.raises(TypeError, match="inner has"), Watched("inner"):
            coroutine()
        coroutine()
    assert sys.get_coroutine_origin_tracking_depth() == 0


# --- drivers ---


class Laser(Device):
    """Says whether it is on, and which of its steps return something else than they should."""

    def __init__(self, name, **results):
        super().__init__(name)
        self._results = results
        self._on = False

    def _open(self):
        return self._results.get("_open")

    def _close(self):
        return self._results.get("_close")

    def _make_safe(self):
        return self._results.get("_make_safe")

    def switch_on(self) -> None:
        """Switch on."""
        self._on = True


@every_kind
@pytest.mark.parametrize(
    ("base", "name"),
    [
        (Device, "_open"), (Device, "_close"), (Device, "_make_safe"), (Laser, "_make_safe"),
        (VisaDevice, "_identify"), (VisaDevice, "_write"), (VisaDevice, "_query"),
    ],
)  # fmt: skip
def test_a_hook_of_a_driver_that_is_a_coroutine_or_generator_is_refused_when_the_class_is_made(base, name, function):
    for bases, body in [((base,), {name: function}), ((type("Mixin", (), {name: function}), base), {})]:
        with pytest.raises(TypeError, match=rf"Refused\.{name} is a.*, {REFUSED}"):
            type("Refused", bases, body)
    cls = type("Refused", (base,), {})
    with pytest.raises(TypeError, match=REFUSED):
        setattr(cls, name, function)
    assert getattr(cls, name) is getattr(base, name)


def test_a_private_helper_of_a_driver_may_be_a_generator():
    class Scanner(Laser):
        def _steps(self):
            yield 1

        @contextlib.contextmanager
        def _transaction(self):
            yield

    assert list(Scanner("scanner")._steps()) == [1]


def test_a_laser_whose_make_safe_returns_a_coroutine_is_in_fault():
    laser = Laser("laser", _make_safe=coroutine())
    with pytest.raises(DeviceFaultError, match=f"Laser._make_safe returned a coroutine, {NOT_DONE}"), laser:
        laser.switch_on()

    assert laser.state == "fault"


def _iterator():
    return map(str, [1])


def _future():
    return concurrent.futures.Future()


def _failed_future():
    future = _future()
    future.set_exception(OSError("the laser does not answer"))
    return future


def _answer_of_a_pool():
    return multiprocessing.pool.AsyncResult(types.SimpleNamespace(_cache={}), None, None)


UNDONE = [_iterator, lambda: filter(None, []), lambda: iter([]), _future, _failed_future, _answer_of_a_pool]


@pytest.mark.parametrize("returned", UNDONE)
def test_a_laser_whose_make_safe_returns_an_iterator_or_a_future_is_in_fault(returned):
    laser = Laser("laser", _make_safe=returned())
    with pytest.raises(DeviceFaultError, match=f"Laser._make_safe returned a .*, {NOT_DONE}"), laser:
        laser.switch_on()

    assert laser.state == "fault"


@pytest.mark.parametrize("returned", UNDONE)
def test_no_operation_returns_an_iterator_or_a_future(returned):
    class Scanner(Laser):
        def scan(self) -> object:
            """Scan."""
            return returned()

        def scans(self) -> object:
            """Scan several times."""
            return [returned()]

    with Scanner("scanner") as device:
        for scan in (device.scan, device.scans):
            with pytest.raises(TypeError, match="outside of the device's mutex"):
                scan()


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (lambda laser: [coroutine()], "returned a list with a coroutine in it, whose work"),
        (lambda laser: laser.switch_on, "returned a method, which was not called"),
        (lambda laser: laser._off() and None, r"has made a coroutine that never ran \(.*AsyncLaser\._off, line"),
    ],
)
@pytest.mark.parametrize("step", ["_open", "_make_safe", "_close"])
@dropped
def test_a_step_of_a_driver_that_has_not_run_is_an_error(step, returned, problem):
    class AsyncLaser(Laser):
        async def _off(self):
            self._on = False

    def run(self):
        return returned(self)

    setattr(AsyncLaser, step, run)
    laser = AsyncLaser("laser")
    with pytest.raises(DeviceFaultError if step == "_make_safe" else TypeError, match=f"{step} {problem}"), laser:
        laser.switch_on()
    assert laser.state == ("fault" if step == "_make_safe" else "closed")
    laser._life_.abandon()


@dropped
def test_an_opening_that_has_dropped_a_coroutine_is_made_safe_and_closed():
    done_ = []

    class Noted(Laser):
        def _open(self):
            coroutine()
            return self

        def _make_safe(self):
            done_.append("safe")

        def _close(self):
            done_.append("close")

    with pytest.raises(TypeError, match="Noted._open has made a coroutine"):
        Noted("noted").open()
    assert done_ == ["safe", "close"]


def test_a_connection_may_be_a_file(tmp_path):
    (tmp_path / "port").touch()
    with open(tmp_path / "port") as file, Laser("laser", _open=file) as laser:
        assert laser.is_open


@pytest.mark.parametrize("step", ["_open", "_close"])
def test_opening_and_closing_that_return_a_coroutine_raise(step):
    laser = Laser("laser", **{step: coroutine()})

    with pytest.raises(TypeError, match=f"Laser.{step} returned a coroutine, {NOT_DONE}"), laser:
        laser.switch_on()
    assert laser.state == "closed"


def test_an_identify_that_returns_a_coroutine_is_an_error():
    class Silent(VisaDevice):
        def _identify(self):
            return coroutine()

    address = "TCPIP0::192.0.2.1::5025::SOCKET"
    library = build_library([Instrument(address, "scpi_camera")], clock="virtual")
    with pytest.raises(TypeError, match=f"Silent._identify returned a coroutine, {NOT_DONE}"):
        Silent("silent", address=address, visa_library=library).open()


def test_a_condition_that_returns_a_coroutine_is_an_error():
    class Waits(Laser):
        def settle(self) -> bool:
            """Wait."""
            return self.wait(coroutine)

    with Waits("waits") as device, pytest.raises(TypeError, match=NOT_DONE):
        device.settle()


@every_kind
@pytest.mark.parametrize(
    "declare",
    [
        lambda function: Measurement(function, doc="A."),
        lambda function: Setting(function, doc="A."),
        lambda function: Control("A?", "A {}", type=function, doc="A."),
        lambda function: Control("A?", "A {}", limits=function, doc="A."),
    ],
)
def test_a_function_of_a_quantity_that_is_a_coroutine_or_generator_is_refused(declare, function):
    with pytest.raises(TypeError, match=REFUSED):
        declare(function)


def test_a_setter_of_a_quantity_that_returns_a_coroutine_raises():
    class Source(Laser):
        level = Setting(lambda device, value: coroutine(), doc="Level.")
        gain = Setting("GAIN {}", doc="Gain.")

        def _write(self, command):
            return coroutine()

    with Source("source") as source:
        with pytest.raises(TypeError, match=f"the function that sets level returned a coroutine, {NOT_DONE}"):
            source.level = 1
        with pytest.raises(TypeError, match=f"Source._write returned a coroutine, {NOT_DONE}"):
            source.gain = 1


# --- processes and what servers make ---


@every_kind
def test_a_process_with_a_coroutine_or_generator_as_target_is_refused(function):
    with pytest.raises(TypeError, match=f"the target of a process is a.*{REFUSED}"):
        Process(target=function)
    with pytest.raises(TypeError, match=rf"Refused\.run is a.*{REFUSED}"):
        type("Refused", (Process,), {"run": function})


def test_a_process_whose_target_returns_a_coroutine_has_failed():
    process = Process(target=lambda: (number for number in range(3)), name="counter")
    process.start()

    with pytest.raises(TypeError, match=f"process 'counter' returned a generator, {NOT_DONE}"):
        process.join(60)


@every_kind
def test_the_function_that_loads_a_dict_must_be_a_plain_function(function):
    with pytest.raises(TypeError, match=REFUSED):
        MutexedDict(load=function)


def test_a_coroutine_is_not_stored_as_a_value_of_a_dict():
    table = MutexedDict(name="table", load=lambda key: coroutine())

    with pytest.raises(TypeError, match=f"the function that loads dict 'table' returned a coroutine, {NOT_DONE}"):
        table["x"]
    assert "x" not in table


# --- experiments ---


@every_kind
@pytest.mark.parametrize("name", ["pre_experiment", "experiment", "post_experiment", "teardown"])
def test_a_method_of_an_experiment_that_is_a_coroutine_or_generator_is_refused_when_the_class_is_made(name, function):
    for bases, body in [((Experiment,), {name: function}), ((type("Mixin", (), {name: function}), Experiment), {})]:
        with pytest.raises(TypeError, match=rf"Refused\.{name} is a.*{REFUSED}"):
            type("Refused", bases, body)


# --- plugins ---


@pytest.mark.parametrize("step", ["read", "problem"])
def test_a_safety_test_that_returns_a_coroutine_raises(step):
    class Wet:
        def read(self, devices):
            return coroutine() if step == "read" else 1

        def problem(self, value):
            return coroutine()

    check = PluginTest(name="wet", test="wet", implementation=Wet())
    with pytest.raises(TypeError, match=rf"{step}\(\) of the test 'wet' returned a coroutine, {NOT_DONE}"):
        check.problem(check.read(None))


@dropped
@pytest.mark.parametrize("step", ["read", "problem"])
def test_a_safety_test_that_drops_a_coroutine_raises(step):
    class Wet:
        def read(self, devices):
            coroutine() if step == "read" else None
            return 1

        def problem(self, value):
            coroutine() if step == "problem" else None

    check = PluginTest(name="wet", test="wet", implementation=Wet())
    with pytest.raises(TypeError, match=rf"{step}\(\) of the test 'wet' has made a coroutine that never ran"):
        check.problem(check.read(None))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("async def catkit_devices_drivers(): ...", "drivers() must be a plain function, and is a coroutine"),
        ("def safety_tripped(check): yield", "safety_tripped() must be a plain function, and is a generator"),
        ("def catkit_devices_safety_tests(): return {'own': Own}", "'own' must be a class with plain methods"),
        ("def catkit_devices_simulators(): return {'own': Own}", "simulator 'own' must be a class with feed(data)"),
    ],
)  # fmt: skip
def test_hooks_and_the_classes_that_they_return_must_not_be_coroutines(tmp_path, code, problem):
    from catkit_devices.drivers import Plugins

    own = "class Own:\n    def read(self, devices): ...\n    async def problem(self, value): ...\n"
    own += "    async def feed(self, data): ...\n"
    name = f"deferred_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(f"from catkit_devices import hookimpl\n{own}@hookimpl\n{code}\n")

    with pytest.raises(PluginError) as caught:
        Plugins([tmp_path])

    assert problem in str(caught.value)


def test_a_simulated_property_is_not_coupled_to_a_coroutine_or_generator(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text('spec: "1.1"\ndevices: {x: {properties: {a: {default: 1.0, getter: {q: "A?", r: "{}"}}}}}\n')
    with pytest.raises(TypeError, match=f"what property 'a' is coupled to is a coroutine, {REFUSED}"):
        YamlInstrument(build_bench(None, {}), file).couple("a", coroutine)


@pytest.mark.parametrize("name", ["is_safe", "make_unsafe"])
def test_a_conformance_test_whose_is_safe_is_a_coroutine_is_refused(name):
    with pytest.raises(TypeError, match=rf"Refused\.{name} is a coroutine, {REFUSED}"):
        type("Refused", (DriverConformance,), {name: coroutine})
