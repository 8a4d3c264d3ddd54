"""A lamp without hardware, for programs that end: what happens to it is written to a file, line by line."""

import os
import threading
import time

from catkit_devices.device import Device


class Lamp(Device):
    """Is on when it is opened, as many instruments are; as slow as it is told."""

    def __init__(self, name, *, journal, open_seconds=0.0, safe_seconds=0.0, **options):
        super().__init__(name, **options)
        self._journal = journal
        self._open_seconds = open_seconds
        self._safe_seconds = safe_seconds
        self._wire = threading.Lock()

    def _note(self, what):
        with open(self._journal, "a") as file:
            file.write(f"{what}\n")

    def _open(self):
        self._note("opening")
        time.sleep(self._open_seconds)
        self._note("on")
        return object()

    def _close(self):
        self._note("closed")

    def _make_safe(self):
        with self._wire:
            self._note("making safe")
            time.sleep(self._safe_seconds)
            self._note("off")

    def switch_on(self):
        self._checkpoint()
        with self._wire:
            self._note("on")

    def exchange_for(self, seconds):
        """One exchange that takes long, then another one."""
        with self._wire:
            self._note("exchange begins")
            time.sleep(seconds)
            self._note("exchange ends")
        self.switch_on()


def tell(journal, what):
    Lamp._note(type("Note", (), {"_journal": journal})(), what)


def end_oneself(number):
    os.kill(os.getpid(), number)
    time.sleep(60)
