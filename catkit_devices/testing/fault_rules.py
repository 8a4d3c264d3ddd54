"""What a driver makes of each fault on its line: the right value, or the right error, and then it goes on."""

from __future__ import annotations

import contextlib
import pickle
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.simulation import Fault
from catkit_devices.testing.members import Member, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.testing.rig import Rig

__all__ = ["error_problems", "survives", "variants"]

_MOST_REPLIES = 4
"""How many of an operation's replies are struck, one after the other."""

_RIGHT_ERRORS: dict[str, tuple[type[DeviceError], ...]] = {
    "no_reply": (DeviceTimeoutError,),
    "late": (DeviceTimeoutError,),
    "truncated": (DeviceTimeoutError, DeviceProtocolError),
    "garbled": (DeviceTimeoutError, DeviceProtocolError),
    "extra": (DeviceTimeoutError, DeviceProtocolError),
    "disconnect": (DeviceDisconnectedError,),
    "slow": (DeviceTimeoutError,),
}


def variants(kind: str, device: Any) -> Iterator[Fault]:
    """Return faults of one kind that a driver must stand.

    Args:
        kind: of the fault.
        device: the driver's timeouts and terminations are used against it.
    """
    timeout: float = getattr(type(device), "io_timeout", 2.0)
    window: float = getattr(device, "_late_window", 1.0)
    end = getattr(type(device), "read_termination", "\n").encode("ascii")
    match kind:
        case "late":
            yield Fault(kind, delay=0.5 * timeout)
            yield Fault(kind, delay=timeout + 0.5 * window)
        case "truncated":
            yield Fault(kind, keep=1)
            yield Fault(kind, keep=3)
        case "garbled":
            yield Fault(kind, position=0)
            yield Fault(kind, position=-1)
        case "extra":
            yield Fault(kind, data=b"1", after=False)
            yield Fault(kind, data=b"1", after=True)
            yield Fault(kind, data=end or b"\n", after=False)
        case _:
            yield Fault(kind)


def survives(rig: Rig, member: Member, kind: str, *, detectable: bool) -> list[str]:
    """Let one reply after the other of an operation be struck by faults of one kind; return what went wrong.

    Args:
        rig: with its device open.
        member: the operation.
        kind: of the faults.
        detectable: whether the protocol lets a driver find such a fault.
    """
    problems: list[str] = []
    for fault in variants(kind, rig.device):
        for replies in range(_MOST_REPLIES):
            struck, found = _strike(rig, member, fault, replies, detectable=detectable)
            problems += [f"{member}, reply {replies + 1} struck by {_text(fault)}: {problem}" for problem in found]
            if not struck:
                break
    return problems


def error_problems(error: BaseException, device: Any) -> list[str]:
    """Return what is wrong with an error that a device has raised: it must be a DeviceError that pickles."""
    if not isinstance(error, DeviceError):
        return [f"raised {type(error).__name__} ({error}), which is no DeviceError"]
    problems = []
    if error.device != device.name:
        problems.append(f"{type(error).__name__} does not name the device: {error}")
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception as failure:  # noqa: BLE001 - whatever a class of the driver's does
        return [*problems, f"{type(error).__name__} does not pickle: {failure!r}"]
    if (type(copy), str(copy), vars(copy)) != (type(error), str(error), vars(error)):
        problems.append(f"{type(error).__name__} is another one after pickling: {copy!r}")
    return problems


def _strike(rig: Rig, member: Member, fault: Fault, replies: int, *, detectable: bool) -> tuple[bool, list[str]]:
    """Do an operation while one of its replies is struck; return whether it was, and what went wrong."""
    if rig.tap is None:
        return False, []
    line = rig.tap.line
    right = _expectation(rig, member)
    history = len(line.history)
    line.inject(fault, after=replies)
    result, error = None, None
    try:
        result = member.run(rig.device)
    except Exception as raised:  # noqa: BLE001 - whatever a driver raises
        error = raised
    line.clear()
    if len(line.history) == history:
        return False, []
    problems: list[str] = []
    if error is not None:
        problems += error_problems(error, rig.device)
        if isinstance(error, DeviceFaultError) or rig.device.state == "fault":
            problems.append(f"went to FAULT at once: {error}")
        elif isinstance(error, DeviceError) and not isinstance(error, _RIGHT_ERRORS[fault.kind]):
            wanted = " or ".join(kind.__name__ for kind in _RIGHT_ERRORS[fault.kind])
            problems.append(f"must raise {wanted}, raised {type(error).__name__}: {error}")
    elif detectable and not right(result, False):
        problems.append(f"returned {_short(result)}, which is not right")
    return True, problems + _afterwards(rig, member, fault, right, failed=error is not None, detectable=detectable)


def _afterwards(
    rig: Rig, member: Member, fault: Fault, right: Callable[[Any, bool], bool], *, failed: bool, detectable: bool
) -> list[str]:
    """Use the device again; return what is wrong with it."""
    if fault.kind == "disconnect":
        rig.reopen()
    try:
        if member.kind == "call":
            member.run(rig.device)
            return []
        if member.kind == "set" and not _readable(rig, member):
            member.run(rig.device)
            return []
        value = getattr(rig.device, member.name)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        rig.reopen()
        return [f"the next use failed, though nothing was wrong any more: {type(error).__name__}: {error}"]
    if detectable and not right(value, failed):
        return [f"the next use read {_short(value)}, which is not right"]
    return []


def _expectation(rig: Rig, member: Member) -> Callable[[Any, bool], bool]:
    """Bring the device into a known state; return what tells whether a value fits what was done then."""
    if member.kind == "set":
        return _expect_set(rig, member)
    if member.kind == "call":
        return lambda _value, _failed: True
    rig.settle()
    one, other = member.run(rig.device), member.run(rig.device)
    if same(one, other) and member.name not in rig.case.varying:
        return lambda value, _failed: same(value, one)
    return lambda value, _failed: type(value) is type(one)


def _expect_set(rig: Rig, member: Member) -> Callable[[Any, bool], bool]:
    readable = _readable(rig, member)
    values = rig.settable()[member.name]
    if not readable or not values:
        return lambda _value, _failed: True
    # What the operation sets is read once, undisturbed: it may be rounded.
    member.run(rig.device)
    new = getattr(rig.device, member.name)
    with contextlib.suppress(IndexError):
        setattr(rig.device, member.name, values[1])
    old = getattr(rig.device, member.name)

    def right(value: Any, failed: bool) -> bool:
        if value is None:  # a setter returns nothing
            return True
        return same(value, new) or (failed and same(value, old))

    return right


def _readable(rig: Rig, member: Member) -> bool:
    return bool(rig.device.describe()["properties"][member.name]["readable"])


def _text(fault: Fault) -> str:
    details = {"late": f"delay={fault.delay:g}", "truncated": f"keep={fault.keep}",
               "garbled": f"position={fault.position}", "extra": f"data={fault.data!r}, after={fault.after}"}  # fmt: skip
    return f"{fault.kind}({details.get(fault.kind, '')})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
