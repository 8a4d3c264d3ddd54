"""Ctrl-C at any moment loses the call that it interrupts, and nothing else."""

import os
import random
import signal
import threading
import time

import pytest
from instruments import Instrument

from catkit_devices.multiprocessing import Process, SharedMemoryManager


def connect():
    manager = SharedMemoryManager("bench")
    manager.connect()
    return manager


def interrupted_at_random(seed, rounds):
    """Interrupt oneself at random moments of calls and sections; every answer must be that of its own question."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    manager = connect()
    instrument = manager.get_object("instrument")
    chooser = random.Random(seed)
    stop = threading.Event()
    armed = threading.Event()

    def interrupt():
        while not stop.is_set():
            if armed.wait(0.1):
                time.sleep(chooser.random() * 0.002)
                if armed.is_set():
                    armed.clear()
                    os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    interrupts = 0
    number = 0
    for _ in range(rounds):
        try:
            armed.set()
            while True:
                number += 1
                assert instrument.echo(number) == number, "the answer to another question"
        except KeyboardInterrupt:
            interrupts += 1
        number += 1
        assert instrument.echo(number) == number, "the answer to another question"
    for _ in range(rounds):
        try:
            armed.set()
            while True:
                with instrument.lock():
                    try:
                        number += 1
                        assert instrument.echo(number) == number
                    finally:
                        armed_before = armed.is_set()
                        armed.clear()  # what follows checks the invariant, uninterrupted
                        assert instrument.mutex.holder.depth >= 1, "given away before the block was left"
                        if armed_before:
                            armed.set()
        except KeyboardInterrupt:
            interrupts += 1
            armed.clear()
        while mine(manager, instrument):  # CPython: an interrupt on entry to __exit__ keeps it held, and visible
            instrument.release()
    stop.set()
    armed.clear()
    return interrupts


def mine(manager, instrument):
    holder = instrument.mutex.holder
    return holder is not None and f"pid {os.getpid()}," in holder.owner


def test_ctrl_c_at_random_points_never_mixes_answers_nor_gives_the_mutex_away(manager, instrument, rounds):
    instrument.null()
    processes = [Process(target=interrupted_at_random, args=(seed, rounds(60, soak=2000))) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.result > 50
    assert instrument.mutex.holder is None
    assert instrument.record["overlaps"] == 0


def test_the_mutex_stays_held_until_the_block_is_left_its_finally_included(manager, instrument):
    holders = []
    with pytest.raises(KeyboardInterrupt), instrument.lock():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            instrument.nap(60)
        finally:
            holders.append(instrument.mutex.holder)
            instrument.value = 5
            holders.append(instrument.mutex.holder)
    assert all(str(os.getpid()) in str(holder) for holder in holders)
    assert instrument.value == 5
    assert instrument.mutex.holder is None


def test_a_long_operation_that_waits_is_cancelled_on_the_server(manager, instrument, until):
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        instrument.nap(60)
    started = time.monotonic()
    assert instrument.echo("next") == "next"
    assert time.monotonic() - started < 5


def test_the_owners_next_operation_waits_for_the_body_that_it_abandoned(manager, instrument):
    with pytest.raises(KeyboardInterrupt), instrument.lock():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            instrument.work(1.0)  # not interruptible on the server
        finally:
            instrument.value = 1
            assert instrument.record["overlaps"] == 0
            wire = instrument.record["wire"]
    assert "worked" not in wire  # the abandoned body was stopped at its next exchange
    assert wire[-1] == "value=1"


def test_an_interrupted_wait_for_a_mutex_is_withdrawn(manager, until):
    mutex = manager.get_mutex("m")
    release = threading.Event()

    def hold():
        with mutex:
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    until(lambda: mutex.holder)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        mutex.acquire()
    until(lambda: not mutex.waiters)
    release.set()
    holder.join()
    until(lambda: mutex.holder is None)


def test_an_interrupted_nested_call_is_cancelled_on_the_second_server(manager, second_manager, until):
    from instruments import Instrument

    class Nester(Instrument):
        def nap_there(self):
            return self._uses.nap(60)

    stage = second_manager.get_object("stage", Instrument, "stage", open_on_use=True)
    wheel = manager.get_object("wheel", Nester, "wheel", uses=stage, open_on_use=True)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        wheel.nap_there()
    started = time.monotonic()
    assert stage.echo(1) == wheel.echo(1)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["mutex", "operation"])
def test_ctrl_c_while_waiting_in_ones_own_process_leaves_nothing(until, kind):
    device = Instrument("instrument", open_on_use=True)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with device.lock():
            entered.set()
            leave.wait(10)

    def interrupt():
        until(lambda: device.mutex.waiters)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threads = [threading.Thread(target=hold), threading.Thread(target=interrupt)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    with pytest.raises(KeyboardInterrupt):
        device.mutex.acquire(30) if kind == "mutex" else device.null()
    assert device.mutex.waiters == []
    leave.set()
    for thread in threads:
        thread.join()
    assert device.mutex.holder is None
    assert device.echo("again") == "again"
