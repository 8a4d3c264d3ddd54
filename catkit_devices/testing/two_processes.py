"""A device on a server, used by two processes at once. These processes import this module, so it imports little."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at, set_at
from catkit_devices.errors import DeviceValueError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catkit_devices.testing.rig import Case

__all__ = ["Task", "use_from_two_processes"]

_ROUNDS = 5
"""How often each process repeats its task: enough for the two to use the device at the same time."""
_LONGEST = 120.0
"""Seconds until a process must have finished."""
_NAME = "device under test"
"""What the device is called on its server."""


class Task:
    """What each process repeats: acquire the device, set a value and read it back, or only read.

    Args:
        control: the property that is set and read back; None if the driver has none.
        values: the values to which it is set, in turn.
        within: by how much the value that is read back may differ.
        readable: the properties that are read.
        refused: a value that the property refuses; None if there is none.
    """

    def __init__(
        self, control: str | None, values: Sequence[Any], within: float, readable: Sequence[str], refused: Any
    ) -> None:
        self.control = control
        self.values = values
        self.within = within
        self.readable = readable
        self.refused = refused

    def run(self, device: Any, turn: int) -> list[str]:
        """Carry out the task; return what went wrong."""
        from catkit_devices.testing.members import same

        problems = []
        for number in range(_ROUNDS):
            with device.lock():
                for name in self.readable:
                    get_at(device, name)
                if self.control is None:
                    continue
                value = self.values[(number + turn) % len(self.values)]
                set_at(device, self.control, value)
                found = get_at(device, self.control)
                if not same(found, value, self.within):
                    problems.append(f"one process has set {self.control} to {value!r}, and read {found!r} back")
        if self.control is not None and self.refused is not None:
            try:
                set_at(device, self.control, self.refused)
            except DeviceValueError:
                pass
            else:
                problems.append(f"{self.control} accepted {self.refused!r} through a proxy")
        return problems


def use_from_two_processes(case: Case, task: Task) -> list[str]:
    """Have a server make the device, and two processes carry out a task on it at once; return what went wrong."""
    from catkit_devices.multiprocessing import Process, SharedMemoryManager

    name = f"conformance-{os.getpid()}-{os.urandom(4).hex()}"
    with SharedMemoryManager(name) as manager:
        device = manager.get_object(_NAME, host, case)
        with device:
            described = device.describe()
            users = [Process(target=use, args=(name, task, turn), name=f"user {turn}") for turn in (0, 1)]
            for user in users:
                user.start()
            problems = [problem for user in users for problem in _result(user)]
    return problems + _incomplete(described, task)


def _result(user: Any) -> list[str]:
    try:
        user.join(_LONGEST)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        return [f"another process got {type(error).__name__}: {error}"]
    found: list[str] = user.result
    return found


def host(case: Case) -> Any:
    """Make the device, on the server."""
    return case.make(case.simulations())


def use(server: str, task: Task, turn: int) -> list[str]:
    """Carry out the task, in its own process."""
    from catkit_devices.multiprocessing import SharedMemoryManager

    manager = SharedMemoryManager(server)
    manager.connect()
    device = manager.get_object(_NAME)
    with device:
        return task.run(device, turn)


def _incomplete(described: Mapping[str, Any], task: Task) -> list[str]:
    wanted = [*task.readable, *([task.control] if task.control else [])]
    missing = [name for name in wanted if name not in described["properties"]]
    return [f"describe() of the proxy does not have {', '.join(missing)}"] if missing else []
