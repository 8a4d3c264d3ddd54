"""Programs are killed in turn, and what comes after them is looked at: who is granted, when, and what it finds."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time

from victims import HOLDING, OTHERS, Victims

from catkit_devices.gateway.doors import LockAnswer
from catkit_devices.gateway.messages import MessageType


class _Experiment:
    """Who waits next, in Python."""

    def __init__(self, bench):
        self._lamp = bench.lamp
        self._thread = threading.Thread(target=self._run)
        self._last = threading.Event()

    def begin(self):
        self._thread.start()

    def _run(self):
        with self._lamp.lock(timeout=20.0):
            self.granted = time.monotonic()
            self.found = self._lamp.query("POW?"), self._lamp.query("ECHO? of the next")

    def end(self):
        self._thread.join()
        return self.granted, self.found


class _Visitor:
    """Who waits next, through the gateway."""

    def __init__(self, program):
        self._program = program

    def begin(self):
        self._program.begin_lock(20)

    def end(self):
        assert self._program.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS
        granted = time.monotonic()
        found = self._program.query(b"POW?"), self._program.query(b"ECHO? of the next")
        assert self._program.unlock() == LockAnswer.SUCCESS
        return granted, tuple(answer.decode().strip() for answer in found)


def kill_in_turn(bench, lamp, kills, seed):
    """Kill programs that hold, wait, ask or are in the middle of a message.

    Returns:
        The seconds from each kill, or from when who had the lock gave it back, until the next one had it; sorted.
    """
    chance = random.Random(seed)
    visitor = lamp()
    kinds = list(itertools.islice(itertools.cycle([*HOLDING, *OTHERS]), kills))
    chance.shuffle(kinds)
    taken = []
    with Victims(bench.port, "hislip_lamp") as victims:
        for kind in kinds:
            then = chance.choice([_Experiment(bench), _Visitor(visitor)])
            if kind.startswith("waits"):
                with bench.lamp.lock(timeout=20.0):
                    victim = victims.start(kind)
                    bench.wait_for(1)
                    then.begin()
                    bench.wait_for(2)
                    os.kill(victim, signal.SIGKILL)
                    time.sleep(chance.uniform(0, 0.02))
                    begun = time.monotonic()
            else:
                victim = victims.start(kind)
                if kind.startswith("holds"):
                    then.begin()
                    bench.wait_for(1)
                time.sleep(chance.uniform(0, 0.02))
                begun = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                if not kind.startswith("holds"):
                    then.begin()
            granted, found = then.end()
            assert found == ("0", "of the next"), (kind, found)
            taken.append(granted - begun)
    heard = bench.heard()
    assert heard.count("POW 7") == sum(kind.startswith("holds") for kind in kinds)
    assert "POW 8" not in heard  # of which only a part was sent
    # After a question whose reply was not read, the line must be silent for a second, and the lamp is asked who it is.
    assert heard.count("*IDN?") == 1, "the lamp was opened once, and its line was never out of step"
    lit = False
    for message in heard:  # the instrument's own view: off before the next one's first word
        lit = message == "POW 7" or (lit and message != "POW 0")
        assert not (lit and message == "ECHO? of the next")
    return sorted(taken)
