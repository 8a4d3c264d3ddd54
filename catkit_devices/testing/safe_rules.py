"""Whether ``make_safe()`` really makes a device safe, whatever else happens at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceFaultError
from catkit_devices.simulation import FAULTS
from catkit_devices.testing import overlap
from catkit_devices.testing.fault_rules import variants

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testing.rig import Rig

__all__ = ["made_safe", "made_safe_under_faults"]


def made_safe(rig: Rig, make_unsafe: Callable[[], None], is_safe: Callable[[], bool]) -> list[str]:
    """Make the open device safe, in each way that there is; return which did not.

    Args:
        rig: with its device open.
        make_unsafe: brings it into another state.
        is_safe: tells whether it is in the safe state.
    """
    device, problems = rig.device, []
    make_unsafe()
    device.make_safe()
    if not is_safe():
        problems.append("make_safe() did not reach the safe state")
    make_unsafe()
    if overlap.while_held(device, device.make_safe):
        problems.append("make_safe() waited for whoever had the device")
    if not is_safe():
        problems.append("make_safe() did not reach the safe state while somebody had the device")
    make_unsafe()
    device.close()
    device.open()
    if not is_safe():
        problems.append("it was not safe after the last close()")
    return problems


def made_safe_under_faults(rig: Rig, make_unsafe: Callable[[], None], is_safe: Callable[[], bool]) -> list[str]:
    """Make the device safe while its line has faults; return the faults at which it stayed unsafe without an error."""
    device, problems = rig.device, []
    for kind in FAULTS:
        for fault in variants(kind, device):
            make_unsafe()
            if rig.tap is not None:
                rig.tap.line.inject(fault)
            try:
                device.make_safe()
            except DeviceFaultError:  # it is known, then
                rig.reopen()
                continue
            rig.mend()
            device._life_.abandon()  # which does not make it safe, as closing it does
            device.open()
            if not is_safe():
                problems.append(f"make_safe() returned under {kind}, and it was not safe")
    return problems
