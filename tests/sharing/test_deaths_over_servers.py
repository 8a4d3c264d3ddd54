"""What a client leaves on other servers than those that it talks to, when it dies or ends."""

import random
import threading
import time
from pathlib import Path

import pytest

from catkit_devices.device import Device
from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager

pytestmark = pytest.mark.usefixtures("ready_children")


class Lamp(Device):
    """Its light is a file, which is there while it shines."""

    def __init__(self, name, light):
        super().__init__(name, open_on_use=True)
        self._light = Path(light)

    def _open(self):
        return object()

    def _make_safe(self):
        self._light.unlink(missing_ok=True)

    @property
    def on(self):
        return self._light.exists()

    @on.setter
    def on(self, on):
        self._light.touch() if on else self._light.unlink(missing_ok=True)

    def stay_on(self, seconds):
        """Hear nothing meanwhile."""
        self._light.touch()
        time.sleep(seconds)
        self._light.touch()


class Through(Device):
    """Passes on what it is asked for to a device, and has nothing itself that could be made safe."""

    def __init__(self, name, other, mutex=None):
        super().__init__(name, open_on_use=True)
        self._other = other
        self._mutex = mutex

    def _open(self):
        self._other.open()
        return object()

    @property
    def on(self):
        return self._other.on

    @on.setter
    def on(self, on):
        self._other.on = on

    def stay_on(self, seconds):
        self._other.stay_on(seconds)

    def wait_on(self, seconds):
        self._other.on = True
        self.wait(seconds)

    def keep_mutex(self):
        self._mutex.acquire()


@pytest.fixture
def bench(manager, second_manager, tmp_path):
    """A device on one server that uses a lamp on another one."""
    lamp = second_manager.get_object("lamp", Lamp, "lamp", tmp_path / "light")
    through = manager.get_object("through", Through, "through", lamp, second_manager.get_mutex("m"))
    through.on = False
    return through, lamp, tmp_path / "light"


def blink(through, started):
    started.set()
    while True:
        with through.lock():
            through.on = True
            through.wait_on(random.random() * 0.01)
            through.stay_on(random.random() * 0.01)
            through.on = False


def start(manager, target, *args):
    started = manager.get_event(f"started {random.random()}")
    process = Process(target=target, args=(*args, started))
    process.start()
    assert started.wait(30)
    return process


def kill(process):
    process.kill()
    with pytest.raises(ProcessDiedError):
        process.join(20)


def test_a_device_that_a_killed_client_switched_on_through_another_server_is_off_before_the_next_one_enters(
    manager, bench, rounds, until
):
    through, lamp, light = bench
    for _ in range(rounds(4, soak=200)):
        process = start(manager, blink, through)
        killing = threading.Timer(random.random() * 0.2, process.kill)
        killing.start()
        while process.is_alive():
            with through.lock(20):
                assert not through.on
        kill(process)
        killing.join()
        until(lambda: not light.exists() and lamp.mutex.holder is None)
        assert lamp.state == "open"


def hold_and_switch_on(through, started):
    with through.lock():
        through.on = True
        started.set()
        time.sleep(60)


def stay_on(through, started):
    started.set()
    through.stay_on(0.5)


def wait_on(through, started):
    started.set()
    through.wait_on(60)


@pytest.mark.parametrize("doing", [hold_and_switch_on, stay_on, wait_on])
def test_a_device_used_through_another_server_is_made_safe_whatever_the_killed_client_was_doing(
    manager, bench, until, doing
):
    through, lamp, light = bench
    process = start(manager, doing, through)
    until(light.exists)
    kill(process)
    until(lambda: not light.exists())
    with through.lock(20), lamp.lock(20):
        assert not light.exists()
    assert lamp.state == "open"


def test_the_death_of_a_client_is_passed_on_through_several_servers(runtime, bench, manager, until):
    through, _, light = bench
    with SharedMemoryManager("third") as third:
        twice = third.get_object("twice", Through, "twice", through)
        process = start(manager, hold_and_switch_on, twice)
        kill(process)
        until(lambda: not light.exists())


def keep(through, started):
    through.keep_mutex()
    started.set()
    time.sleep(60)


def test_a_mutex_that_was_acquired_for_a_killed_client_on_another_server_is_free(manager, second_manager, bench):
    process = start(manager, keep, bench[0])
    mutex = second_manager.get_mutex("m")
    assert mutex.holder.pid == process.pid
    kill(process)
    with mutex:
        pass


def switch_on(through, started):
    through.on = True
    started.set()


def test_a_client_that_ends_in_good_order_leaves_the_devices_of_other_servers_as_they_are(manager, bench):
    through, lamp, light = bench
    start(manager, switch_on, through).join(20)
    with through.lock(), lamp.lock():
        assert light.exists()


def test_a_device_that_a_server_keeps_open_stays_open_when_the_client_for_which_it_was_opened_ends(
    manager, second_manager, until, tmp_path
):
    lamp = second_manager.get_object("kept", Kept, "kept", tmp_path / "light")
    through = manager.get_object("to kept", Through, "to kept", lamp)
    kill(start(manager, hold_and_switch_on, through))
    until(lambda: not (tmp_path / "light").exists())
    assert lamp.state == "open"
    through.on = True


class Kept(Lamp):
    """Closes behind the last one who leaves."""

    def __init__(self, name, light):
        Device.__init__(self, name)
        self._light = Path(light)


def test_a_client_of_the_other_server_keeps_its_mutexes_there(manager, second_manager, bench, until):
    through, lamp, light = bench
    with lamp.lock():
        process = start(manager, wait_for_it, through)
        until(lambda: lamp.mutex.waiters)
        kill(process)
        until(lambda: not lamp.mutex.waiters)
        lamp.on = True
        with through.lock(20):
            assert through.on
    assert light.exists()


def wait_for_it(through, started):
    started.set()
    through.on = True
