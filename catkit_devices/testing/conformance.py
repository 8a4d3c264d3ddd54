"""The suite that every driver must pass.

::

    from catkit_devices.testing import DriverConformance


    class TestAcmeS1(DriverConformance):
        driver = "acme_s1"
        safe_state = {"voltage": 0.0}

Each test is one rule. If a driver breaks it, the failure says how. The device runs on its simulated instrument, under
the real VISA stack, and on a virtual clock, so that no test waits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

try:
    import pytest

    from catkit_devices.testing import value_rules
except ImportError as error:
    raise ImportError(
        f"the conformance suite needs pytest and hypothesis ({error}): pip install 'catkit-devices[pytest]'"
    ) from error

from catkit_devices._base.deferred import refuse_deferred_methods
from catkit_devices._base.paths import get_at, set_at
from catkit_devices.device import Device
from catkit_devices.simulation import FAULTS
from catkit_devices.testing import fault_rules, opening_rules, overlap, safe_rules, telling_rules
from catkit_devices.testing.members import facts_of, quantities, resolution_of, same, settable
from catkit_devices.testing.rig import Case, Rig
from catkit_devices.testing.two_processes import Task, use_from_two_processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from catkit_devices.simulation import Bench

__all__ = ["DriverConformance"]


class DriverConformance:
    """Derive a test class from it, and say which driver it is for.

    Attributes:
        driver: the registered name of the driver, or its class.
        stand_in: for a driver without VISA, the class that replaces its instrument. A driver that opens no instrument
            says ``has_instrument = False`` instead.
        simulator: its simulated instrument: a registered name, a class, or the path of a YAML file or recording; None
            for the simulator that is registered under the driver's name.
        address: the address of the instrument, or a VISA resource expression; None for a serial port if the driver has
            settings for one, and for a TCP socket otherwise.
        options: keyword arguments of the driver.
        simulator_options: keyword arguments of the simulator.
        bench: the physical model: a registered name or a class; None for an empty model.
        bench_options: keyword arguments of the model.
        plugins: directories of plugin files, for drivers that are not installed.
        values: values that properties accept, if their declaration does not say: ``{"region": [(0, 0, 4, 4)]}``.
        refused: values that properties must refuse, in addition to those that their declaration excludes.
        arguments: arguments for the methods that need some: ``{"move": (10.0, -5.0)}``.
        varying: properties whose value changes from one reading to the next, because of drift or noise of the model.
        left_out: members that no rule tests, and why: ``{"reboot": "the simulated instrument stays on"}``. A command
            that toggles something need not be left out: the rules allow it to change other properties.
        resolution: by how much a value that is read may differ from the value that was set; a thousandth of the range
            by default.
        safe_state: the values of properties when the device is safe: ``{"enabled": False}``. If values of properties
            cannot describe it, override :meth:`is_safe` and :meth:`make_unsafe`.
        undetectable: kinds of fault that the instrument's protocol cannot reveal, and why: ``{"garbled": "frames have
            no checksum"}``. Values are not compared while such a fault is tried.
        strict: whether the driver must also detect extra digits in front of replies. This is possible only if the
            protocol has an echo, replies of a fixed form or frames, or if the driver asks twice.
        unlocked: members that acquire no lock, on purpose.
        examples: how many values each property is set to.
    """

    driver: ClassVar[str | type[Device]]
    simulator: ClassVar[str | type | Path | None] = None
    stand_in: ClassVar[type | None] = None
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
    left_out: ClassVar[Mapping[str, str]] = {}
    safe_state: ClassVar[Mapping[str, Any]] = {}
    undetectable: ClassVar[Mapping[str, str]] = {}
    strict: ClassVar[bool] = False
    unlocked: ClassVar[Sequence[str]] = ()
    examples: ClassVar[int] = 25

    # --- what a test author may override

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_deferred_methods(cls, ["is_safe", "make_unsafe"])

    def is_safe(self, device: Any, simulator: Any) -> bool:  # noqa: ARG002 - for those who override it
        """Return whether the open device is in its safe state, by ``safe_state`` or by the simulator's true state."""
        return all(same(get_at(device, name), value) for name, value in self.safe_state.items())

    def make_unsafe(self, device: Any) -> None:
        """Bring the open device into an unsafe state, such as a source that is on; ``make_safe()`` must end it."""
        possible = settable(device, self.values)
        for name, safe in self.safe_state.items():
            unsafe = [value for value in possible.get(name, ()) if not same(value, safe)]
            if not unsafe:
                pytest.fail(f"say how {name} is made unsafe: override make_unsafe()", pytrace=False)
            set_at(device, name, unsafe[-1])

    # --- fixtures

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        """The device, closed, and its instrument."""
        rig = Rig(self._case())
        yield rig
        rig.close()

    def _case(self) -> Case:
        if not hasattr(type(self), "driver"):
            pytest.fail(f"class {type(self).__name__} must say driver = ...", pytrace=False)
        return Case(**{name: getattr(type(self), name) for name in Case.__dataclass_fields__})

    # --- opening and closing

    def test_constructing_it_opens_nothing(self, rig: Rig) -> None:
        """A device that is constructed has opened no connection, no file and no thread."""
        _judge(opening_rules.constructs_only(rig))

    def test_opening_and_closing_again_is_harmless(self, rig: Rig) -> None:
        """Opening an open device and closing a closed one do nothing, and it can be opened again."""
        _judge(opening_rules.opens_and_closes_again(rig))

    def test_a_failed_open_leaves_it_closed_and_it_opens_later(self, rig: Rig) -> None:
        """Wherever opening fails, the device is closed, closing it does no harm, and it can be opened afterwards."""
        _judge(opening_rules.fails_in_good_order(rig))

    def test_every_operation_of_a_closed_device_is_refused(self, rig: Rig) -> None:
        """Operations of a closed device raise DeviceClosedError and send nothing."""
        _judge(opening_rules.refuses_while_closed(rig, self.unlocked))

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
                    set_at(device, name, value)
                    if not same(found := get_at(device, name), value, self.resolution.get(name, 0.0)):
                        problems.append(f"{name} was set to {value!r} and reads {found!r}")
        _judge(problems)

    def test_values_outside_are_refused_before_the_wire(self, rig: Rig) -> None:
        """A value that is out of range or of a wrong kind raises DeviceValueError, and nothing is sent."""
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
        """No operation begins or comes in between while another one is running."""
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
                facts = facts_of(device, name, quantity)
                refused = [*value_rules.refused_values(facts)]
                within = resolution_of(facts, self.resolution.get(name))
                return Task(name, values, within, readable, "nonsense" if "nonsense" in refused else None)
        return Task(None, (), 0.0, readable, None)

    # --- what it says of itself

    def test_it_tells_what_it_can_do(self, rig: Rig) -> None:
        """describe() has a description of every property and command, with unit and range if it is a number."""
        with rig.opened():
            _judge(telling_rules.describes_itself(rig))

    # --- errors and faults

    def test_errors_name_the_device_and_pickle(self, rig: Rig) -> None:
        """Every failure raises a DeviceError that names the device and can be sent to another process."""
        _judge(telling_rules.raises_what_travels(rig, self.unlocked))

    @pytest.mark.parametrize("kind", FAULTS)
    def test_a_fault_on_the_line_is_survived(self, rig: Rig, kind: str) -> None:
        """When a fault strikes, the operation succeeds or raises the right error; no value is wrong, then or later."""
        problems: list[str] = []
        hints: list[str | None] = []
        with rig.opened():
            settable = rig.settable()
            for member in rig.members():
                if member.known:
                    detectable = kind not in self.undetectable
                    found = fault_rules.survives(rig, member, kind, detectable=detectable, strict=self.strict)
                    hints.append(fault_rules.advice(member, found, settable=member.name in settable))
                    problems += found
        _judge([*problems, *hints])

    def test_making_safe_reaches_the_safe_state(self, rig: Rig) -> None:
        """make_safe() and the last close() make it safe, even while another holds its mutex; a failure means FAULT."""
        makes_safe = rig.device._can_be_made_safe_()
        told = bool(self.safe_state) or type(self).is_safe is not DriverConformance.is_safe
        if makes_safe and not told:
            pytest.fail("the driver has _make_safe(): say what the safe state is, as safe_state = {...}", pytrace=False)
        with rig.opened() as device:
            state = partial(self.make_unsafe, device), partial(self.is_safe, device, rig.simulator)
            problems = safe_rules.made_safe(rig, *state)
            if makes_safe:
                problems += safe_rules.made_safe_under_faults(rig, *state)
        _judge(problems)


def _judge(problems: Sequence[str | None]) -> None:
    found = list(dict.fromkeys(problem for problem in problems if problem))
    if found:
        pytest.fail("\n".join(found), pytrace=False)
