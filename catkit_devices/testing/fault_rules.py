"""Rules for faults on the line: a driver returns the right value or raises the right error, and works afterwards."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at, set_at
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
    from collections.abc import Iterator

    from catkit_devices.testing.rig import Rig

__all__ = ["advice", "error_problems", "survives", "variants"]

_MOST_REPLIES = 4
"""How many of an operation's replies are struck, one after the other."""

_LOOKS = 5
"""How many equal readings in a row show that a property does not change by itself."""

_MOTION = 0.25
"""Seconds on the bench's clock: what takes longer to do is a motion, which may go on after an error."""

_RIGHT_ERRORS: dict[str, tuple[type[DeviceError], ...]] = {
    "no_reply": (DeviceTimeoutError,),
    "late": (DeviceTimeoutError,),
    "truncated": (DeviceTimeoutError, DeviceProtocolError),
    "garbled": (DeviceTimeoutError, DeviceProtocolError),
    "extra": (DeviceTimeoutError, DeviceProtocolError),
    "disconnect": (DeviceDisconnectedError,),
    "slow": (DeviceTimeoutError,),
}
"""The errors that a driver may raise after each kind of fault."""


def variants(kind: str, device: Any, *, strict: bool = False) -> Iterator[Fault]:
    """Return the faults of one kind that a driver must handle.

    Args:
        kind: the kind of fault.
        device: the device under test; its timeouts and terminations decide what the faults look like.
        strict: whether there are also faults that put extra digits in front of replies.
    """
    timeout: float = getattr(type(device), "io_timeout", 2.0)
    exchanges = getattr(device, "_exchanges_", None)
    window: float = 1.0 if exchanges is None else exchanges.late_window
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
            yield Fault(kind, data=b"\xff", after=False)
            yield Fault(kind, data=end or b"\n", after=False)
            yield Fault(kind, data=b"1", after=True)
            if strict:
                yield Fault(kind, data=b"1", after=False)
        case _:
            yield Fault(kind)


def survives(rig: Rig, member: Member, kind: str, *, detectable: bool, strict: bool) -> list[str]:
    """Repeat an operation with a fault of one kind in each of its replies in turn; return what went wrong.

    Args:
        rig: with its device open.
        member: the operation.
        kind: of the faults.
        detectable: whether the protocol makes it possible to detect such a fault.
        strict: whether there are also faults that put extra digits in front of replies.
    """
    problems: list[str] = []
    try:
        trial = _Trial(rig, member, detectable=detectable)
    except DeviceError as error:
        rig.reopen()
        return [f"{member} cannot be tried: {error}"]
    for fault in variants(kind, rig.device, strict=strict):
        for replies in range(_MOST_REPLIES):
            found = trial.strike(fault, replies)
            if found is None:
                break
            problems += [f"{member}, reply {replies + 1} struck by {_text(fault)}: {problem}" for problem in found]
    return problems


def advice(member: Member, problems: list[str], *, settable: bool) -> str | None:
    """Return what may help where an operation's values were not right, or it could not be tried; None elsewhere.

    Args:
        member: the operation.
        problems: that were found.
        settable: whether it is a property that can be set. Such a one is never to be left out.
    """
    if not any("not right" in problem or "cannot be tried" in problem for problem in problems):
        return None
    if member.kind == "call":
        return 'for a command that cannot be tested, as the instrument behaves: left_out = {"command": "why"}'
    if settable:
        return (
            "after an error, a property that can be set must read its old value or the new one; the one of the safe "
            "state only if the device was made safe in between"
        )
    return "for a property whose value changes by itself, as the instrument behaves: varying = [...]"


def error_problems(error: BaseException, device: Any) -> list[str]:
    """Return what is wrong with an error that a device has raised: it must be a DeviceError that pickles."""
    if not isinstance(error, DeviceError):
        return [f"raised {type(error).__name__} ({error}), which is not a DeviceError"]
    problems = []
    if error.device != device.name:
        problems.append(f"{type(error).__name__} does not name the device: {error}")
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception as failure:  # noqa: BLE001 - whatever a class of the driver's does
        return [*problems, f"{type(error).__name__} cannot be pickled: {failure!r}"]
    if (type(copy), str(copy), vars(copy)) != (type(error), str(error), vars(error)):
        problems.append(f"{type(error).__name__} changes when it is pickled: {copy!r}")
    return problems


class _Trial:
    """One operation that is repeated, each time with a fault in one of its replies, and the results that are right.

    A property that can be set gets a different value before each reading. So an old value, or a reply that comes late,
    is never taken for the right one. After an operation that failed, the old value and the new one are right; and where
    the device was made safe in between, the value that it has whenever it was made safe.
    """

    def __init__(self, rig: Rig, member: Member, *, detectable: bool) -> None:
        self._rig = rig
        self._device: Any = rig.device
        self._member = member
        self._detectable = detectable
        facts = {} if member.kind == "call" else self._device.describe()["properties"][member.name]
        self._readable = bool(facts.get("readable"))
        self._values = rig.settable()[member.name][-2:] if facts.get("writable") else []
        self._read: list[Any] = []
        """The reading after each of the values was set."""
        rig.settle()
        if self._readable:
            self._read = [self._set_and_get(value) for value in self._values] or [self._get()]
        self._witness = self._find_witness()
        self._made_safe_before = rig.times_made_safe
        rig.settle()
        self._comparable = self._readable and (bool(self._values) or self._is_steady())
        self._takes = self._duration()
        if self._readable and self._values:
            self._set_and_get(self._values[-1])

    def strike(self, fault: Fault, replies: int) -> list[str] | None:
        """Do the operation with a fault in the reply that follows ``replies`` others.

        Returns:
            What went wrong; None if the operation has no such reply.
        """
        if self._rig.tap is None:
            return None
        line = self._rig.tap.line
        if problems := self._prepare():
            return problems
        history = len(line.history)
        safe_before = self._rig.times_made_safe
        if fault.kind == "late":  # not later than the driver's timeout, which includes the instrument's own time
            fault = replace(fault, delay=max(fault.delay - self._takes, 0.0))
        line.inject(fault, after=replies)
        result, error = None, None
        try:
            result = self._do()
        except Exception as raised:  # noqa: BLE001 - whatever a driver raises
            error = raised
        line.clear()
        if len(line.history) == history:
            return None
        if error is not None:
            problems += self._wrong_error(error, fault)
        elif self._member.kind == "get" and not self._right(result, 0):
            problems.append(f"returned {_short(result)}, which is not right for what was set")
        return problems + self._afterwards(fault, safe_before, failed=error is not None)

    def _prepare(self) -> list[str]:
        try:
            if self._values:
                set_at(self._device, self._member.name, self._values[0])
            if self._member.kind == "set" and self._readable:
                self._get()
        except DeviceError as error:
            self._rig.reopen()
            return [f"the device did not work any more after the fault before this one: {error}"]
        return []

    def _do(self) -> Any:
        if self._member.kind == "set" and self._values:
            set_at(self._device, self._member.name, self._values[-1])
            return None
        return self._member.run(self._device)

    def _is_steady(self) -> bool:
        return all(same(self._get(), self._read[0]) for _ in range(_LOOKS))

    def _duration(self) -> float:
        """Return how long the operation takes on the bench's clock."""
        clock = self._rig.simulations.bench.clock
        if self._values:
            set_at(self._device, self._member.name, self._values[0])
        begun = clock.time()
        self._do()
        return clock.time() - begun

    def _get(self) -> Any:
        return get_at(self._device, self._member.name)

    def _set_and_get(self, value: Any) -> Any:
        set_at(self._device, self._member.name, value)
        return self._get()

    def _right(self, value: Any, number: int) -> bool:
        """Return whether a value is the right reading after the value of that number was set."""
        if not (self._comparable and self._detectable) or self._member.name in self._rig.case.varying:
            return type(value) is type(self._read[0])
        return same(value, self._read[number])

    def _wrong_error(self, error: Exception, fault: Fault) -> list[str]:
        problems = error_problems(error, self._device)
        if isinstance(error, DeviceFaultError) or self._device.state == "fault":
            problems.append(f"went to FAULT at once: {error}")
        elif isinstance(error, DeviceError) and not isinstance(error, _RIGHT_ERRORS[fault.kind]):
            wanted = " or ".join(kind.__name__ for kind in _RIGHT_ERRORS[fault.kind])
            problems.append(f"must raise {wanted}, raised {type(error).__name__}: {error}")
        return problems

    def _afterwards(self, fault: Fault, safe_before: int, *, failed: bool) -> list[str]:
        """Use the device again; return what is wrong with it.

        Args:
            fault: that has struck.
            safe_before: how many times the device had been made safe before that.
            failed: whether the operation has failed.
        """
        if fault.kind == "disconnect":
            self._rig.repair()  # without closing it, which would make it safe: then no value of before could be found
        try:
            return self._use_again(safe_before, failed=failed)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises
            self._rig.reopen()
            return [f"the next use failed, although the fault was over: {type(error).__name__}: {error}"]

    def _use_again(self, safe_before: int, *, failed: bool) -> list[str]:
        if failed and self._member.kind != "get" and self._takes > _MOTION:
            return self._use_after_a_motion(safe_before)
        problems = self._witness_problems("then")
        if not self._readable:
            self._member.run(self._device)
            return problems
        if self._member.kind == "set":
            value, possible = self._get(), ([0, -1] if failed and len(self._read) > 1 else [-1])
            safe = failed and self._is_of_the_safe_state(self._member.name, value, safe_before)
        else:
            value = self._set_and_get(self._values[-1]) if self._values else self._get()
            possible = [-1]
            safe = not self._values and self._is_of_the_safe_state(self._member.name, value, self._made_safe_before)
        if not safe and not any(self._right(value, number) for number in possible):
            problems.append(f"the next use read {_short(value)}, which is not right")
        return problems

    def _use_after_a_motion(self, safe_before: int) -> list[str]:
        """Look at what is perhaps still moving; then have it move again, and look once more."""
        problems = []
        if self._readable:
            value = self._get()
            if not (self._between(value) or self._is_of_the_safe_state(self._member.name, value, safe_before)):
                problems.append(f"then it read {_short(value)}, which is not on its way")
        self._rig.settle()
        self._do()
        problems += self._witness_problems("after the next use")
        if self._readable and not self._right(value := self._get(), -1):
            problems.append(f"the next use read {_short(value)}, which is not right")
        return problems

    def _witness_problems(self, when: str) -> list[str]:
        if self._witness is None:
            return []
        name, right = self._witness
        found = get_at(self._device, name)
        if same(found, right) or self._is_of_the_safe_state(name, found, self._made_safe_before):
            return []
        return [f"{when} {name} read {_short(found)}, which is not right"]

    def _is_of_the_safe_state(self, name: str, value: Any, safe_before: int) -> bool:
        """Return whether a property reads a value because the device was made safe since a count of the rig's.

        If it was, it is made safe once more now, which shows what the property reads then. Before that, the property is
        set to another value, if it can be set: so a value that making it safe does not change is not taken for it.
        """
        if self._rig.times_made_safe == safe_before or not self._device._can_be_made_safe_():
            return False
        others = [one for one in self._rig.settable().get(name, ()) if not same(one, value)]
        if others:
            set_at(self._device, name, others[0])
        self._device.make_safe()
        return same(get_at(self._device, name), value)

    def _between(self, value: Any) -> bool:
        """Return whether it is one of two values that were set, or between the two."""
        if self._right(value, 0) or self._right(value, -1):
            return True
        ends = [self._read[0], self._read[-1]]
        return isinstance(value, float | int) and min(ends) <= value <= max(ends)

    def _find_witness(self) -> tuple[str, Any] | None:
        """Return another property and its value, by which a reply that belongs to this operation can be recognised.

        The value differs from every value of this operation, and the operation does not change it.
        """
        others = [
            other
            for other in self._rig.members()
            if other.kind == "get" and other.name not in (self._member.name, *self._rig.case.varying)
        ]
        looks = [[other.run(self._device) for other in others] for _ in self._each()]
        for other, *values in zip(others, *looks, strict=True):
            value = values[0]
            if all(same(value, found) for found in values) and not any(same(value, mine) for mine in self._read):
                return other.name, value
        return None

    def _each(self) -> Iterator[None]:
        """Do the operation in each way that a trial does it, and twice at least."""
        for value in self._values or [None, None]:
            if self._values:
                set_at(self._device, self._member.name, value)
            else:
                self._member.run(self._device)
            self._rig.settle()
            yield


def _text(fault: Fault) -> str:
    details = {
        "late": f"delay={fault.delay:g}",
        "truncated": f"keep={fault.keep}",
        "garbled": f"position={fault.position}",
        "extra": f"data={fault.data!r}, after={fault.after}",
    }
    return f"{fault.kind}({details.get(fault.kind, '')})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
