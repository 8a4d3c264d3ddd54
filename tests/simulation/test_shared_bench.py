"""One bench for several processes: what another process sees of an instrument is what one beside it sees."""

from __future__ import annotations

import threading
import time

import pytest
import pyvisa
from pyvisa.constants import StatusCode

from catkit_devices.errors import SimulationError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.simulation import (
    Bench,
    Fault,
    Instrument,
    Outbox,
    RemoteVisaLibrary,
    SharedSimulation,
    build_library,
)

SERIAL = "ASRL1::INSTR"
USB = "USB0::0x1313::0x8078::P0001::0::INSTR"
NEIGHBOUR = "GPIB0::5::INSTR"


class Store:
    """Keeps the last line that was written to it, answers `?` after `delay` seconds; `boom` is a bug in it."""

    message_end = b"\n"

    def __init__(self, bench, *, delay=0.0):
        self.bench = bench
        self.kept = b""
        self.delay = delay
        self.outbox = Outbox(bench.clock)

    def feed(self, data):
        for line in data.splitlines():
            if line == b"boom":
                raise ZeroDivisionError("a bug of the simulator")
            if line == b"?":
                self.outbox.put(self.kept + b"\n", self.delay)
            else:
                self.kept = line
        return self.outbox.take()


def simulation(clock="virtual", delay=0.0):
    instruments = [Instrument(SERIAL, Store, {"delay": delay}), Instrument(USB, Store), Instrument(NEIGHBOUR, Store)]
    return SharedSimulation(build_library(instruments, clock=clock, bench=Bench if clock is None else None))


@pytest.fixture
def host():
    with SharedMemoryManager("sim") as manager:
        yield manager


@pytest.fixture
def shared(host):
    return host.get_object("simulation", simulation)


@pytest.fixture
def remote(shared):
    library = RemoteVisaLibrary(shared)
    manager = pyvisa.ResourceManager(library)
    yield manager
    manager.close()


def talk(resource):
    resource.read_termination = resource.write_termination = "\n"
    return resource


def code(caught):
    return StatusCode(caught.value.error_code)


@pytest.mark.parametrize("address", [SERIAL, USB])
def test_a_dialogue_works_across_processes(remote, address):
    with remote.open_resource(address) as resource:
        talk(resource).write("spam")
        assert resource.query("?") == "spam"


def test_the_ends_of_messages_are_kept(remote):
    with remote.open_resource(USB) as resource:
        resource.write_raw(b"spam")  # the end of the message replaces the terminator
        resource.write_raw(b"?")
        resource.write_raw(b"?")
        assert resource.read_raw() == b"spam\n"
        assert resource.read_raw() == b"spam\n"


def test_a_timeout_is_the_simulated_one(remote, shared):
    with remote.open_resource(SERIAL, timeout=60_000) as resource:
        started, began = time.monotonic(), shared.time()
        with pytest.raises(pyvisa.VisaIOError) as caught:
            resource.read_bytes(1)
        assert code(caught) is StatusCode.error_timeout
        assert shared.time() - began >= 60
        assert time.monotonic() - started < 10


def test_attributes_and_the_bytes_that_wait_are_those_of_the_session(remote):
    with remote.open_resource(SERIAL, baud_rate=115200, timeout=1500) as resource:
        assert (resource.baud_rate, resource.timeout) == (115200, 1500)
        resource.write_raw(b"spam\n?\n")
        assert resource.bytes_in_buffer == 5
        resource.flush(pyvisa.constants.BufferOperation.discard_read_buffer)
        assert resource.bytes_in_buffer == 0
        with pytest.raises(pyvisa.VisaIOError) as caught:
            resource.read_stb()
        assert code(caught) is StatusCode.error_nonsupported_operation


def test_an_address_without_an_instrument_does_not_open(remote):
    for address in ("ASRL2::INSTR", "nonsense"):
        with pytest.raises(pyvisa.VisaIOError):
            remote.open_resource(address)
    assert remote.list_resources("?*") == (SERIAL, USB, NEIGHBOUR)


def test_faults_and_cables_can_be_used_from_other_processes(remote, shared):
    shared.inject(SERIAL, Fault("disconnect"))
    with remote.open_resource(SERIAL) as resource:
        with pytest.raises(pyvisa.VisaIOError) as caught:
            talk(resource).query("?")
        assert code(caught) is StatusCode.error_connection_lost
    assert shared.fault_history(SERIAL) == [(1, "disconnect")]
    remote.open_resource(SERIAL).close()
    shared.disconnect(SERIAL)
    with pytest.raises(pyvisa.VisaIOError):
        remote.open_resource(SERIAL)
    shared.reconnect(SERIAL)
    remote.open_resource(SERIAL).close()


def test_a_function_is_evaluated_in_the_process_of_the_bench(remote, shared):
    with remote.open_resource(SERIAL) as resource:
        talk(resource).write("spam")
    assert shared.evaluate(lambda library, address: library.instrument(address).kept, SERIAL) == b"spam"


def test_a_bug_in_a_simulator_arrives_as_a_simulation_error(remote):
    with remote.open_resource(SERIAL) as resource, pytest.raises(SimulationError, match="a bug of the simulator"):
        talk(resource).write("boom")


def test_a_value_that_one_process_sets_is_seen_by_another_one(shared, remote):
    def write():
        manager = SharedMemoryManager("sim")
        manager.connect()
        library = RemoteVisaLibrary(manager.get_object("simulation"))
        resource = pyvisa.ResourceManager(library).open_resource(SERIAL, write_termination="\n")
        resource.write("from a child")
        return len(manager.get_object("simulation").addresses())

    process = Process(target=write)
    process.start()
    process.join(30)
    assert process.result == 3
    with remote.open_resource(SERIAL) as resource:
        assert talk(resource).query("?") == "from a child"


def sessions(library):
    return {address: len(library.resource(address)._open) for address in library.addresses}


def test_a_killed_process_leaves_no_session_open(shared, host, until):
    def open_and_wait(event):
        manager = SharedMemoryManager("sim")
        manager.connect()
        library = RemoteVisaLibrary(manager.get_object("simulation"))
        opened = pyvisa.ResourceManager(library).open_resource(SERIAL)
        manager.get_event(event).set()
        time.sleep(60)
        opened.close()

    process = Process(target=open_and_wait, args=("ready",))
    process.start()
    assert host.get_event("ready").wait(30)
    assert shared.evaluate(sessions)[SERIAL] == 1
    process.kill()
    until(lambda: shared.evaluate(sessions)[SERIAL] == 0)
    with pytest.raises(Exception, match="SIGKILL"):
        process.join(10)


def test_a_process_that_waits_for_an_instrument_does_not_delay_other_processes(host):
    shared = host.get_object("simulation", simulation, None, 3600.0)
    manager = pyvisa.ResourceManager(RemoteVisaLibrary(shared))
    slow, fast = (talk(manager.open_resource(address, timeout=15_000)) for address in (SERIAL, USB))
    waiting = threading.Event()

    def wait():
        slow.write("?")
        waiting.set()
        with pytest.raises(pyvisa.VisaIOError):
            slow.read()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    fast.write("quick")
    assert fast.query("?") == "quick"
    assert thread.is_alive()
    shared.disconnect(SERIAL)
    thread.join(10)
    assert not thread.is_alive()
    manager.close()


def test_a_simulation_that_is_gone_is_a_lost_connection():
    manager = SharedMemoryManager("sim")
    manager.start()
    resources = pyvisa.ResourceManager(RemoteVisaLibrary(manager.get_object("simulation", simulation)))
    resource = talk(resources.open_resource(SERIAL))
    manager.shutdown()
    with pytest.raises(ConnectionError):
        resource.write("x")
    resource.close()
