"""Rules for opening and closing, including an opening that fails."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceClosedError, DeviceOpenError
from catkit_devices.simulation import Fault
from catkit_devices.testing.fault_rules import error_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testing.rig import Rig

__all__ = ["constructs_only", "fails_in_good_order", "opens_and_closes_again", "refuses_while_closed"]

_OPENING_REPLIES = 8
"""How many replies of the opening dialogue are lost, one after the other."""


def constructs_only(rig: Rig) -> list[str]:
    """Construct the device once more; return what the constructor has opened."""
    before = _descriptors(), set(threading.enumerate()), 0 if rig.tap is None else rig.tap.opened
    device = rig.case.make(rig.simulations, address=rig.address)
    problems = [f"constructing it opened descriptor {name}" for name in sorted(_descriptors() - before[0])]
    problems += [f"constructing it started thread {one.name!r}" for one in set(threading.enumerate()) - before[1]]
    if rig.tap is not None and rig.tap.opened > before[2]:
        problems.append("constructing it opened a connection to the instrument")
    if rig.written:
        problems.append("constructing it wrote to the instrument")
    if device.state != "closed":
        problems.append(f"constructing it left it {device.state}")
    return problems


def opens_and_closes_again(rig: Rig) -> list[str]:
    """Open it twice and close it three times, and do all of that once more; return what was wrong."""
    device, problems = rig.device, []
    device.close()
    for _ in range(2):
        device.open()
        device.open()
        if device.state != "open":
            problems.append(f"open() left it {device.state}")
        for member in rig.members():
            if member.kind == "get":
                member.run(device)
        device.close()
        if device.state != "open":
            problems.append(f"the first close() of two left it {device.state}")
        device.close()
        problems += _closed(rig, "close()")
        device.close()
    return problems


def fails_in_good_order(rig: Rig) -> list[str]:
    """Make the opening fail, at each of its exchanges in turn; return what was wrong."""
    if rig.tap is None or rig.library is None or rig.address is None:
        return []
    line = rig.tap.line
    rig.library.disconnect(rig.address)
    problems = _open_fails(rig, "nothing connected", must_fail=True)
    for replies in range(_OPENING_REPLIES):
        struck = len(line.history)
        line.inject(Fault("no_reply"), 2, after=replies)  # two, as a driver may ask again
        problems += _open_fails(rig, f"reply {replies + 1} lost", must_fail=False)
        if len(line.history) == struck:
            break
    return problems


def refuses_while_closed(rig: Rig, exempt: Sequence[str]) -> list[str]:
    """Try every operation of the closed device; return which of them were not refused, or sent something."""
    problems = []
    for member in rig.members():
        if member.name in exempt:
            continue
        before = rig.written
        try:
            member.run(rig.device)
        except DeviceClosedError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever a driver raises
            problems.append(f"{member} must raise DeviceClosedError on a closed device, raised {error!r}")
        else:
            problems.append(f"{member} of a closed device was not refused")
        if rig.written > before:
            problems.append(f"{member} of a closed device sent something to the instrument")
    return problems


def _open_fails(rig: Rig, why: str, *, must_fail: bool) -> list[str]:
    """Open the device while its line has a fault, which then ends; return what was wrong."""
    device, problems = rig.device, []
    try:
        device.open()
        if must_fail:
            problems.append(f"with {why}, open() must raise DeviceOpenError, and did not")
    except DeviceOpenError as error:
        problems += [f"with {why}, open() {problem}" for problem in error_problems(error, device)]
        problems += _closed(rig, f"with {why}, open() failed and")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        problems.append(f"with {why}, open() must raise DeviceOpenError, raised {error!r}")
    rig.mend()
    try:
        device.close()
        rig.repair()
        device.close()
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        problems.append(f"with {why}, it could not be closed and opened again afterwards: {error!r}")
        rig.reopen()
        device.close()
    return problems


def _closed(rig: Rig, what: str) -> list[str]:
    problems = [] if rig.device.state == "closed" else [f"{what} left it {rig.device.state}"]
    return problems + ([f"{what} left a connection to the instrument open"] if rig.sessions else [])


def _descriptors() -> set[str]:
    try:
        return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    except OSError:
        return set()
