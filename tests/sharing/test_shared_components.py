"""Components through proxies: operations of their device, by whatever way one has got hold of them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rack import Output, Rack

from catkit_devices import Components, VisaDevice
from catkit_devices.errors import (
    ComponentNotFoundError,
    DeviceClosedError,
    DeviceValueError,
    MutexBrokenError,
    MutexTimeoutError,
    ServerUnresponsiveError,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.client import calls

pytestmark = pytest.mark.usefixtures("ready_children")


@pytest.fixture
def plugged(tmp_path):
    file = tmp_path / "plugged.txt"
    file.write_text("meter switch")
    return file


@pytest.fixture
def rack(manager, plugged):
    return manager.get_object("rack", Rack, "rack", plugged=str(plugged), open_on_use=True)


@pytest.fixture
def asked(monkeypatch):
    """What this process asks servers for, one after the other."""
    names = []
    ask = calls.CallConnection.call

    def call(self, target, operation, name, args, kwargs):
        names.append(name)
        return ask(self, target, operation, name, args, kwargs)

    monkeypatch.setattr(calls.CallConnection, "call", call)
    return names


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.01)


def test_an_operation_of_a_component_is_one_round_trip(rack, asked):
    rack.outputs[2].voltage = "2500 mV"
    value = rack.outputs[2].voltage
    rack.main.ramp(3.0)
    letter = rack.pair["B"].voltage

    assert (value, rack.main.voltage, letter) == (2.5, 3.0, 2.5)
    assert asked == ["outputs.2.voltage", "outputs.2.voltage", "main.ramp", "pair.B.voltage", "main.voltage"]


def test_a_component_is_kept_in_a_variable_and_compared_and_shown(rack):
    output = rack.outputs[2]

    assert output == rack.outputs[2] != rack.outputs[1]
    assert len({output, rack.outputs[2]}) == 1
    assert (output.device, output.key, output.number) == (rack, 2, 2)
    assert repr(output) == "<Output 'rack.outputs[2]' on server 'bench'>"
    assert {"voltage", "ramp", "device", "key", "number"} <= set(dir(output))
    assert {"outputs", "pair", "main", "modules", "fan"} <= set(dir(rack))
    assert not {"lock", "mutex"} & set(dir(output))
    assert type(output).ramp.__doc__ == "Set the voltage, and return the output."


def test_components_are_a_mapping_that_needs_no_server(rack, asked):
    assert list(rack.outputs) == [1, 2, 3]
    assert (2 in rack.pair, "A" in rack.pair, len(rack.outputs)) == (False, True, 3)
    assert [output.key for output in rack.outputs.values()] == [1, 2, 3]
    with pytest.raises(ComponentNotFoundError, match=r"there is no outputs\[0\], there are 1, 2, 3"):
        rack.outputs[0]
    assert asked == []


def test_plugged_in_components_are_asked_for_once(rack, asked):
    assert [rack.modules[1].label for _ in range(3)] == 3 * ["Meter"]
    assert rack.modules[1].sensors[2].value == 2.0
    assert rack.modules[2].count() == 5
    assert asked == ["_there_", *3 * ["modules.1.label"], "modules.1.sensors.2.value", "modules.2.count"]

    assert not hasattr(rack, "fan")
    with pytest.raises(ComponentNotFoundError, match=r"there is no modules\[3\], there are 1, 2"):
        rack.modules[3]


def test_components_that_are_exchanged_are_learned_when_the_device_is_opened_again(rack, plugged):
    meter, switch = rack.modules[1], rack.modules[2]
    rack.close(force=True)
    plugged.write_text("switch switch fan")
    rack.open()

    assert switch.label == "Switch"
    assert rack.fan.voltage == 0.0
    with pytest.raises(AttributeError, match=r"rack.*shares no 'modules\.1\.sensors'|there is no .*any more|sensors"):
        _ = meter.sensors[1].value
    assert rack.modules[1].count() == 5
    rack.close(force=True)


def test_a_component_of_a_closed_device_says_so_and_is_used_again_when_that_is_open(manager, plugged):
    rack = manager.get_object("closed", Rack, "closed", plugged=str(plugged))
    output = rack.outputs[1]
    with pytest.raises(DeviceClosedError, match=r"device 'closed' \(Rack\): 'outputs\[1\]\.voltage' needs it open"):
        output.voltage = 1
    with pytest.raises(DeviceClosedError, match="'modules' needs it open"):
        rack.modules[1]
    with rack:
        module = rack.modules[1]
        output.voltage = 1
    with rack:
        assert (output.voltage, module.label) == (0.0, "Meter")


def test_a_component_travels_to_other_processes_and_back(rack):
    def use(output, sensor):
        output.voltage = 4
        return output, sensor.value

    process = Process(target=use, args=(rack.outputs[3], rack.modules[1].sensors[2]))
    process.start()
    process.join()

    assert process.result == (rack.outputs[3], 2.0)
    assert rack.outputs[3].voltage == 4.0
    assert pickle.loads(pickle.dumps(rack.outputs)) == rack.outputs
    assert pickle.loads(pickle.dumps(rack.modules[2])).count() == 5


def test_a_driver_that_travels_by_value_has_its_components(manager):
    class Local(VisaDevice):
        outputs = Components(Output, numbers=(1, 2))
        main = Output(7)
        plugged = Components(Output, numbers=lambda device: [5])
        absent = Output(8, fitted=lambda device: False)

        def _open(self):
            self._values = {}
            return self

        def _close(self):
            pass

        def _make_safe(self):
            pass

    local = manager.get_object("local", Local, "local", address="ASRL1::INSTR", open_on_use=True)
    local.outputs[2].voltage = 2

    assert [local.outputs[2].voltage, local.main.number, local.plugged[5].number] == [2.0, 7, 5]
    assert not hasattr(local, "absent")
    assert set(local.describe()["components"]) == {"outputs", "main", "plugged", "absent"}


def test_on_its_server_a_component_is_the_component_itself(rack):
    assert rack.outputs[1].same(rack.outputs[1])
    assert rack.favourite() == rack.outputs[2]
    assert rack.outputs[1].ramp(2.0) == rack.outputs[1]


def test_a_value_that_a_component_refuses_is_reported_as_by_its_device(rack):
    with pytest.raises(DeviceValueError, match=r"device 'rack' \(Rack\): outputs\[1\]\.voltage must be 0 to 30 V"):
        rack.outputs[1].voltage = 31
    with pytest.raises(AttributeError, match=r"object 'rack' shares no 'outputs\.1\.volage' \(it has .*voltage"):
        rack.outputs[1].volage = 3
    with pytest.raises(
        AttributeError, match="is a method, which can be called but not set|cannot be set: it is a method"
    ):
        rack.outputs[1].ramp = 3
    with pytest.raises(AttributeError, match="'outputs' of object 'rack' is a component, or several"):
        rack.outputs = 3
    with pytest.raises(AttributeError, match="'main' of object 'rack' is a component"):
        rack.main = 3
    with pytest.raises(AttributeError, match="has no attribute 'lock': it has the mutex of its device"):
        rack.outputs[1].lock()
    with pytest.raises(AttributeError, match="has no attribute '_values'"):
        _ = rack.outputs[1]._values


def test_only_what_is_shared_of_a_component_can_be_reached(rack):
    for name in ("outputs.1._perform_", "outputs.1.device", "outputs.1.__reduce__", "outputs.1.wait"):
        for operation in (0, 1, 2, 4):
            with pytest.raises(AttributeError, match="shares no"):
                rack._do(operation, name, (0,) if operation == 2 else ())
    for name in ("outputs.9.voltage", "outputs.voltage", "_life_.open", "favourite.number", "outputs.1._group_.x"):
        with pytest.raises(ComponentNotFoundError):
            rack._do(1, name)


def test_a_component_waits_for_its_device_and_a_shared_read_does_not(manager):
    def hold(rack, entered, go):
        with rack.lock():
            entered.set()
            go.wait(60)

    rack = manager.get_object("impatient", Rack, "impatient", timeout=0.2, open_on_use=True)
    entered, go = manager.get_event("entered"), manager.get_event("go")
    process = Process(target=hold, args=(rack, entered, go))
    process.start()
    entered.wait(30)
    try:
        assert rack.outputs[1].voltage == 0.0
        with pytest.raises(MutexTimeoutError, match="'impatient' not acquired in 0.2 s"):
            rack.outputs[1].voltage = 1
    finally:
        go.set()
        process.join()


def test_a_broken_section_refuses_the_components(rack):
    output = rack.outputs[1]
    with pytest.raises(MutexBrokenError), rack.lock():
        rack.mutex.break_("a test")
        with pytest.raises(MutexBrokenError):
            output.voltage = 1
    output.voltage = 1

    assert output.voltage == 1.0


@pytest.mark.parametrize("_", range(6))  # who waits came first once in four times, when it did
def test_components_are_made_safe_before_the_next_waiter_gets_the_device_of_a_killed_client(rack, tmp_path, _):
    entered = tmp_path / "entered"
    rack.outputs[1].voltage = 12
    program = (
        "import sys; from catkit_devices.multiprocessing import SharedMemoryManager;"
        "manager = SharedMemoryManager('bench'); manager.connect();"
        "manager.get_object('rack').outputs[1].hold(sys.argv[1])"
    )
    client = subprocess.Popen([sys.executable, "-c", program, str(entered)], cwd=Path(__file__).parent)
    until(lambda: entered.exists() and entered.read_text())
    os.kill(client.pid, signal.SIGKILL)
    client.wait()

    assert "rack.outputs[1].hold" in entered.read_text()
    with rack.lock(timeout=30):
        assert rack.outputs[1].voltage == 0.0


def test_a_component_finds_its_device_on_a_server_that_was_started_anew(runtime, plugged):
    first = SharedMemoryManager("bench")
    first.start()
    rack = first.get_object("rack", Rack, "rack", plugged=str(plugged), open_on_use=True)
    output, module = rack.outputs[1], rack.modules[2]
    output.voltage = 3
    os.kill(first._pid if hasattr(first, "_pid") else first._process.pid, signal.SIGKILL)
    with pytest.raises(ServerUnresponsiveError):
        for _ in range(2):
            _ = output.voltage
    first.shutdown()

    with SharedMemoryManager("bench") as second:
        second.get_object("rack", Rack, "rack", plugged=str(plugged), open_on_use=True)

        assert output.voltage == 0.0
        assert module.count() == 5
