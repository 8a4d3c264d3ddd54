"""What a program has switched on is made safe when the program is killed: every bundled driver that has a safe state.

The instruments are simulators and stand-ins.
"""

import pytest
from switched_on import DRIVERS, OPTIONS, STAND_INS, Room, switch_on

from catkit_devices.device import Device
from catkit_devices.drivers import Plugins
from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager


def test_every_driver_is_made_safe_when_the_program_that_switched_it_on_is_killed(until):
    with SharedMemoryManager("room") as manager:
        room = manager.get_object("room", Room)
        program = Process(target=switch_on, args=("room",), name="program")
        program.start()
        until(lambda: set(room.unsafe()) == {*DRIVERS, *STAND_INS})

        program.kill()

        with pytest.raises(ProcessDiedError):
            program.join()
        until(lambda: not room.unsafe())


def test_every_driver_that_has_a_safe_state_is_among_them_and_says_what_it_does():
    drivers = dict(Plugins().drivers)
    drivers["scpi"] = Plugins().driver_for("scpi", OPTIONS["scpi"])  # its safe state is a part of its table
    made_safe = {name: cls for name, cls in drivers.items() if cls._make_safe is not Device._make_safe}
    assert set(made_safe) == {*DRIVERS, *STAND_INS}
    assert [name for name, cls in made_safe.items() if not cls._make_safe.__doc__] == []
