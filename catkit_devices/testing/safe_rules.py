"""Rules for ``make_safe()``: the device is safe afterwards, whatever else happens at the same time."""

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
    """Make the open device safe, in each way that there is; return which of them failed.

    Args:
        rig: with its device open.
        make_unsafe: brings it into an unsafe state.
        is_safe: tells whether it is in the safe state.
    """
    device, problems = rig.device, []
    make_unsafe()
    device.make_safe()
    if not is_safe():
        problems.append("make_safe() did not reach the safe state")
    make_unsafe()
    if overlap.while_held(device, device.make_safe):
        problems.append("make_safe() waited while another thread held the device")
    if not is_safe():
        problems.append("make_safe() did not reach the safe state while another thread held the device")
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
            except DeviceFaultError:  # it has said that the device may be unsafe
                rig.reopen()
                continue
            rig.mend()
            device._life_.abandon()  # closing it would make it safe
            device.open()
            if not is_safe():
                problems.append(f"with the fault {kind}, make_safe() returned without an error, and it was not safe")
    return problems
