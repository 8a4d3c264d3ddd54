"""A lamp, with a driver that can crash."""

import os
import signal
import time
from pathlib import Path

from catkit_devices.device import Device
from catkit_devices.hookspecs import hookimpl


class Lamp(Device):
    """Burns while its file is there; the first attempt to make it safe ends the process, if ``crashes`` says so."""

    has_instrument = False

    def __init__(self, name, *, file: str, crashes: bool = False, **options):
        super().__init__(name, **options)
        self._file = Path(file)
        self._crashed = self._file.with_suffix(".crashed") if crashes else None

    def _open(self):
        return self

    def _make_safe(self):
        if self._crashed is not None and not self._crashed.exists():
            self._crashed.touch()
            os.closerange(3, 1024)  # as the end of a process that takes long: its connections are lost first
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        self._file.unlink(missing_ok=True)

    def switch_on(self) -> None:
        """Switch it on."""
        self._file.touch()


@hookimpl
def catkit_devices_drivers():
    return {"lamp": Lamp}
