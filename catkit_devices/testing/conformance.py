"""The suite that every driver must pass.

::

    from catkit_devices.testing import DriverConformance


    class TestAcmeS1(DriverConformance):
        driver = "acme_s1"
        safe_state = {"voltage": 0.0}

Each test is one rule; what breaks it is told in words. The device runs on its simulated instrument, under the real VISA
stack and on a clock that costs no time.
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

try:
    import pytest

    from catkit_devices.testing import value_rules
except ImportError as error:
    raise ImportError(
        f"the conformance suite needs pytest and hypothesis ({error}): pip install 'catkit-devices[test]'"
    ) from error

from catkit_devices.device import Device
from catkit_devices.errors import DeviceClosedError, DeviceFaultError, DeviceOpenError
from catkit_devices.simulation import FAULTS, Fault
from catkit_devices.testing import fault_rules, overlap
from catkit_devices.testing.members import quantities, resolution_of, same
from catkit_devices.testing.rig import Case, Rig
from catkit_devices.testing.two_processes import Task, use_from_two_processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from catkit_devices.simulation import Bench

__all__ = ["DriverConformance"]

_OPENING_REPLIES = 8
"""How many replies of the opening dialogue are lost, one after the other."""


class DriverConformance:
    """Derive a test class from it, and say which driver it is for.

    Attributes:
        driver: the registered name of the driver, or its class.
        simulator: its simulated instrument: a registered name, a class, or the path of a YAML file or recording; None
            for the simulator that is registered under the driver's name.
        address: where the instrument is; None for a serial port or a TCP socket, as the driver's settings suggest.
        options: keyword arguments of the driver.
        simulator_options: keyword arguments of the simulator.
        bench: the physical model: a registered name or a class; None for an empty one.
        bench_options: keyword arguments of the model.
        plugins: directories of plugin files, for drivers that are not installed.
        values: what properties can be set to, where their declaration does not tell: ``{"region": [(0, 0, 4, 4)]}``.
        refused: what properties must refuse, beyond what their declaration tells.
        arguments: of methods that need some: ``{"move": (10.0, -5.0)}``.
        varying: properties that read differently each time, for drift or noise of the model.
        resolution: by how much what is read may differ from what was set; else a thousandth of the range.
        safe_state: what properties read when the device is safe: ``{"enabled": False}``. Where that cannot be told so,
            override :meth:`is_safe` and :meth:`make_unsafe`.
        undetectable: kinds of fault that the instrument's protocol cannot reveal, and why: ``{"garbled": "frames have
            no checksum"}``. Values are not compared under those.
        unlocked: members that take no lock, on purpose.
        examples: how many values each property is set to.
    """

    driver: ClassVar[str | type[Device]]
    simulator: ClassVar[str | type | Path | None] = None
    address: ClassVar[str | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    simulator_options: ClassVar[Mapping[str, Any]] = {}
    bench: ClassVar[str | type[Bench] | None] = None
    bench_options: ClassVar[Mapping[str, Any]] = {}
    plugins: ClassVar[Sequence[str | Path]] = ()
    values: ClassVar[Mapping[str, Sequence[Any]]] = {}
    refused: ClassVar[Mapping[str, Sequence[Any]]] = {}
    arguments: ClassVar[Mapping[str, Sequence[Any]]] = {}
    resolution: ClassVar[Mapping[str, float]] = {}
    varying: ClassVar[Sequence[str]] = ()
    safe_state: ClassVar[Mapping[str, Any]] = {}
    undetectable: ClassVar[Mapping[str, str]] = {}
    unlocked: ClassVar[Sequence[str]] = ()
    examples: ClassVar[int] = 25

    # --- what a test author may override

    def is_safe(self, device: Any, simulator: Any) -> bool:  # noqa: ARG002 - for those who override it
        """Return whether the open device is in its safe state, by ``safe_state`` or by the simulator's truth."""
        return all(same(getattr(device, name), value) for name, value in self.safe_state.items())

    def make_unsafe(self, device: Any) -> None:
        """Bring the open device into a state that making it safe must end."""
        settable = self._rig.settable()
        for name, safe in self.safe_state.items():
            unsafe = [value for value in settable.get(name, ()) if not same(value, safe)]
            if not unsafe:
                pytest.fail(f"say how {name} is made unsafe: override make_unsafe()", pytrace=False)
            setattr(device, name, unsafe[-1])

    # --- fixtures

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        """The device, closed, and its instrument."""
        self._rig = Rig(self._case())
        yield self._rig
        self._rig.close()

    def _case(self) -> Case:
        names = Case.__dataclass_fields__
        missing = "" if hasattr(type(self), "driver") else f"class {type(self).__name__} must say driver = ..."
        if missing:
            pytest.fail(missing, pytrace=False)
        return Case(**{name: getattr(type(self), name) for name in names})

    # --- opening and closing

    def test_constructing_it_opens_nothing(self) -> None:
        """A device that is constructed has opened no connection, no file and no thread."""
        rig = Rig(self._case())
        opened: list[str] = []
        if rig.library is not None:
            library, connect = rig.library, rig.library._connect
            library._connect = lambda *given: opened.append(given[0]) or connect(*given)  # type: ignore[method-assign,func-returns-value]
        before = _descriptors(), set(threading.enumerate())
        rig.case.make(rig.simulations)
        problems = [f"constructing it opened {address}" for address in opened]
        problems += [f"constructing it opened descriptor {name}" for name in _descriptors() - before[0]]
        problems += [f"constructing it started thread {one.name!r}" for one in set(threading.enumerate()) - before[1]]
        if rig.written:
            problems.append("constructing it wrote to the instrument")
        rig.close()
        _judge(problems)

    def test_opening_and_closing_again_is_harmless(self, rig: Rig) -> None:
        """Opening an open device and closing a closed one do nothing, and it can be opened again."""
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
            if device.state != "closed":
                problems.append(f"close() left it {device.state}")
            device.close()
        _judge(problems)

    def test_a_failed_open_leaves_it_closed_and_it_opens_later(self, rig: Rig) -> None:
        """Wherever opening fails, the device is closed, closing it is harmless, and it opens when all is well."""
        problems = []
        if rig.tap is None or rig.library is None or rig.address is None:
            pytest.skip("the driver has no simulated line")
        rig.library.disconnect(rig.address)
        problems += _failed_open(rig, "nothing connected", must_fail=True)
        for replies in range(_OPENING_REPLIES):
            struck = len(rig.tap.line.history)
            rig.tap.line.inject(Fault("no_reply"), 2, after=replies)  # two, as a driver may ask again
            problems += _failed_open(rig, f"reply {replies + 1} lost", must_fail=False)
            if len(rig.tap.line.history) == struck:
                break
        _judge(problems)

    def test_every_operation_of_a_closed_device_is_refused(self, rig: Rig) -> None:
        """Operations of a closed device raise DeviceClosedError and send nothing."""
        problems = []
        for member in rig.members():
            if member.name in self.unlocked:
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
                problems.append(f"{member} of a closed device was sent")
        _judge(problems)

    # --- values

    def test_what_is_set_is_read_back_across_the_limits(self, rig: Rig) -> None:
        """Every property takes every value within its limits, and reads it back."""
        problems: list[str | None] = []
        with rig.opened() as device:
            declared = quantities(device)
            for name, values in rig.settable().items():
                if name in declared:
                    resolution = self.resolution.get(name)
                    problems.append(value_rules.round_trips(rig, name, declared[name], resolution, self.examples))
                    continue
                for value in values:
                    setattr(device, name, value)
                    if not same(found := getattr(device, name), value, self.resolution.get(name, 0.0)):
                        problems.append(f"{name} was set to {value!r} and reads {found!r}")
        _judge(problems)

    def test_values_outside_are_refused_before_the_wire(self, rig: Rig) -> None:
        """What is out of range, or no value at all, raises DeviceValueError, and nothing is sent."""
        problems: list[str | None] = []
        with rig.opened() as device:
            for name, quantity in quantities(device).items():
                if quantity.writable:
                    problems.append(value_rules.refuses_outside(rig, name, quantity, self.examples))
            for name, values in self.refused.items():
                problems += [value_rules.refuses(rig, name, value) for value in values]
        _judge(problems)

    # --- one at a time

    def test_every_operation_waits_for_the_one_under_way(self, rig: Rig) -> None:
        """No operation begins, and none gets in between, while another one is under way."""
        problems: list[str | None] = []
        with rig.opened():
            for member in rig.members():
                if member.name not in self.unlocked:
                    problems.append(overlap.gets_in(rig, member))
                    problems.append(overlap.is_entered(rig, member))
                    rig.repair()
        _judge(problems)

    def test_it_works_from_two_processes(self, rig: Rig) -> None:
        """On a server, two processes use it at once and never see each other's values."""
        with rig.opened() as device:
            task = self._task(rig, device)
        _judge(use_from_two_processes(self._case(), task))

    def _task(self, rig: Rig, device: Device) -> Task:
        declared, settable = quantities(device), rig.settable()
        readable = [member.name for member in rig.members() if member.kind == "get"]
        for name, quantity in declared.items():
            values = settable.get(name, [])
            if quantity.readable and len(values) > 1:
                facts = quantity.describe(device)
                refused = [*value_rules.refused_values(facts)]
                within = resolution_of(facts, self.resolution.get(name))
                return Task(name, values, within, readable, "nonsense" if "nonsense" in refused else None)
        return Task(None, (), 0.0, readable, None)

    # --- telling

    def test_it_tells_what_it_can_do(self, rig: Rig) -> None:
        """describe() has for every property and command what it is, with unit and range where it is a number."""
        with rig.opened() as device:
            _judge(_missing(device, device.describe()))

    # --- trouble

    def test_errors_name_the_device_and_pickle(self, rig: Rig) -> None:
        """Whatever goes wrong raises a DeviceError that names the device and survives the way to another process."""
        problems: list[str] = []
        for member in rig.members():
            if member.name not in self.unlocked:
                problems += _problems_of_error(rig, member, "on a closed device")
        with rig.opened():
            for member in rig.members():
                if rig.tap is None or not member.known:
                    continue
                rig.tap.line.inject(Fault("no_reply"))
                problems += _problems_of_error(rig, member, "without a reply")
                rig.repair()
        _judge(problems)

    @pytest.mark.parametrize("kind", FAULTS)
    def test_a_fault_on_the_line_is_survived(self, rig: Rig, kind: str) -> None:
        """A fault makes an operation fail with the right error or not at all; no value is wrong, then or afterwards."""
        problems: list[str] = []
        with rig.opened():
            for member in rig.members():
                if member.known:
                    problems += fault_rules.survives(rig, member, kind, detectable=kind not in self.undetectable)
        _judge(problems)

    def test_making_safe_reaches_the_safe_state(self, rig: Rig) -> None:
        """make_safe() and the last close() make it safe, whoever has the device; a failure puts it into FAULT."""
        makes_safe = type(rig.device)._make_safe is not Device._make_safe
        told = bool(self.safe_state) or type(self).is_safe is not DriverConformance.is_safe
        if makes_safe and not told:
            pytest.fail("the driver makes something safe: say what that is, as safe_state = {...}", pytrace=False)
        with rig.opened() as device:
            problems = self._made_safe(rig, device)
            if makes_safe:
                problems += self._made_safe_with_faults(rig, device)
        _judge(problems)

    def _made_safe(self, rig: Rig, device: Device) -> list[str]:
        problems = []
        self.make_unsafe(device)
        device.make_safe()
        if not self.is_safe(device, rig.simulator):
            problems.append("make_safe() did not reach the safe state")
        self.make_unsafe(device)
        if overlap.while_held(device, device.make_safe):
            problems.append("make_safe() waited for whoever had the device")
        if not self.is_safe(device, rig.simulator):
            problems.append("make_safe() did not reach the safe state while somebody had the device")
        self.make_unsafe(device)
        device.close()
        device.open()
        if not self.is_safe(device, rig.simulator):
            problems.append("it was not safe after the last close()")
        return problems

    def _made_safe_with_faults(self, rig: Rig, device: Device) -> list[str]:
        problems = []
        for kind in FAULTS:
            for fault in fault_rules.variants(kind, device):
                self.make_unsafe(device)
                if rig.tap is not None:
                    rig.tap.line.inject(fault)
                try:
                    device.make_safe()
                    failed = False
                except DeviceFaultError:
                    failed = True
                if failed or kind == "disconnect":
                    rig.reopen()
                    continue
                rig.repair()
                if not self.is_safe(device, rig.simulator):
                    problems.append(f"make_safe() returned under {kind}, and it was not safe")
        return problems


def _judge(problems: Sequence[str | None]) -> None:
    found = list(dict.fromkeys(problem for problem in problems if problem))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def _descriptors() -> set[str]:
    try:
        return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    except OSError:
        return set()


def _failed_open(rig: Rig, why: str, *, must_fail: bool) -> list[str]:
    """Open under adverse conditions, which end then; return what was wrong."""
    device, problems = rig.device, []
    try:
        device.open()
        if must_fail:
            problems.append(f"with {why}, open() must raise DeviceOpenError, and did not")
    except DeviceOpenError as error:
        problems += [f"with {why}, open() {problem}" for problem in fault_rules.error_problems(error, device)]
        if device.state != "closed":
            problems.append(f"with {why}, open() failed and left it {device.state}")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        problems.append(f"with {why}, open() must raise DeviceOpenError, raised {error!r}")
    rig.mend()
    device.close()
    rig.repair()
    device.close()
    return problems


def _problems_of_error(rig: Rig, member: Any, when: str) -> list[str]:
    try:
        member.run(rig.device)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        return [f"{member} {when}: {problem}" for problem in fault_rules.error_problems(error, rig.device)]
    return []


def _missing(device: Device, described: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, facts in described["properties"].items():
        declared = name in quantities(device)
        number = facts["type"] in ("int", "float")
        if not facts["doc"]:
            problems.append(f"{name} has no doc")
        if facts["type"] == "float" and not facts["unit"]:
            problems.append(f"{name} has no unit ('dimensionless' where it has none)")
        if number and facts["writable"] and None in (facts["limits"] or (None,)):
            problems.append(f"{name} can be set and has no range: limits=(lowest, highest)")
        if not declared and facts["readable"]:
            value = getattr(device, name)
            if isinstance(value, float) or (isinstance(value, int) and facts["writable"] and value not in (0, 1)):
                problems.append(f"{name} is a number without unit and range: declare it with Control or Measurement")
    problems += [f"{name}() has no doc" for name, facts in described["commands"].items() if not facts["doc"]]
    try:
        json.dumps(described)
    except (TypeError, ValueError) as error:
        problems.append(f"describe() has what is no plain data: {error}")
    return problems

