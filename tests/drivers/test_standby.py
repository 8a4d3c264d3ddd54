"""Threads that exist before they are needed."""

import gc
import math
import threading

import pytest

from catkit_devices._base.standby import Standby, all_at_once, begin
from catkit_devices.device import Device
from catkit_devices.errors import DeviceFaultError


@pytest.fixture
def no_threads():
    """Have this process unable to start a thread."""
    threading.stack_size(1 << 46)  # bytes: more than there is address space
    with pytest.raises(RuntimeError, match="can't start new thread"):
        threading.Thread(target=print).start()
    yield
    threading.stack_size(0)


@pytest.fixture
def standby():
    standby = Standby("standby")
    yield standby
    standby.end()


def threads_named(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_spare_thread_does_its_tasks_in_order_even_if_one_fails(standby, no_threads):
    done = []
    errands = [standby.do(lambda: done.append(1)), standby.do(lambda: 1 // 0), standby.do(lambda: done.append(3))]
    assert all(errand.wait(10.0) for errand in errands)
    assert done == [1, 3]
    assert isinstance(errands[1].failure, ZeroDivisionError)


def test_a_spare_thread_ends_when_nobody_uses_it_any_more(until):
    standby = Standby("dropped")
    assert standby.do(lambda: None).wait(10.0)
    assert threads_named("dropped")
    del standby
    gc.collect()
    until(lambda: not threads_named("dropped"))


def test_a_task_is_done_in_the_calling_thread_if_no_thread_can_be_started(standby, no_threads):
    done = []
    errands = all_at_once({"one": lambda: done.append("one"), "other": lambda: done.append("other")}, "test")
    last = begin(lambda: done.append("last"), "test", standby)
    assert all(errand.wait(10.0) for errand in (*errands.values(), last))
    assert done == ["one", "other", "last"]


class Valve(Device):
    """Is closed by making safe."""

    def __init__(self, name, **options):
        super().__init__(name, safe_timeout=2.0, **options)
        self._made_safe = []
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    def _open(self):
        return self

    def _make_safe(self):
        self._may_go_on.wait()
        self._made_safe.append(threading.current_thread().name)


class Recursive(Valve):
    """Written badly."""

    def _make_safe(self):
        self.make_safe()


def test_a_device_is_made_safe_and_closed_where_no_thread_can_be_started(request, until):
    valve = Valve("valve")
    with valve:
        request.getfixturevalue("no_threads")
    assert valve._made_safe == ["make-safe-valve"]
    assert valve.state == "closed"
    until(lambda: not threads_named("make-safe-valve"))


def test_callers_of_make_safe_share_a_call_that_has_not_begun():
    valve = Valve("valve")
    with valve:
        valve._may_go_on.clear()
        first = valve._life_.begin_to_make_safe()
        while not first.begun:
            pass
        later = [valve._life_.begin_to_make_safe() for _ in range(3)]
        valve._may_go_on.set()
        assert all(errand.wait(10.0) for errand in (first, *later))
        assert len(valve._made_safe) == 2
        assert set(later) == {later[0]}


def test_make_safe_that_calls_itself_is_an_error_and_does_not_recurse_without_end():
    valve = Recursive("valve")
    valve.open()
    with pytest.raises(DeviceFaultError, match=r"Recursive\._make_safe\(\) calls make_safe\(\), which calls it"):
        valve.make_safe()
    assert len(threads_named("make-safe-valve")) == 1


@pytest.mark.parametrize("seconds", [True, 0, 0.0, -1, math.nan, math.inf])
def test_a_device_that_has_no_time_to_be_made_safe_cannot_be_made(seconds):
    with pytest.raises(ValueError, match="device 'bare', making it safe: .*timeout"):
        Device("bare", safe_timeout=seconds)
