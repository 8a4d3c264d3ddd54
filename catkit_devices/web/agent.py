"""What an agent, such as an assistant with a language model, may do with a testbed: its tools.

It only looks, unless a person has granted it control under a name. Then it acts in sessions of that name, under the
same mutexes, permits and limits as everybody else. Breaking a lock and resetting the safety are left to people.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from catkit_devices.plain import plain
from catkit_devices.web.access import Access
from catkit_devices.web.locks import LONGEST_LOCK, SHORTEST_LOCK
from catkit_devices.web.operations import Parameters
from catkit_devices.web.pictures import picture_of
from catkit_devices.web.problems import Problem
from catkit_devices.web.rest import Call, Ending, Start, Value, Wait, description_of_run, history_of, run_path, runs_of
from catkit_devices.web.sessions import require_grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from catkit_devices.web.access import Visitor
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = ["INSTRUCTIONS", "Agent", "Image", "Tool"]

INSTRUCTIONS = (
    "The instruments of a laboratory, shared with people and other programs. Look first: testbed_status, list_devices, "
    "describe_device. To change something a person must have granted it. Hold the devices that you need for several "
    "steps, and release them as soon as you can: others wait. If you say nothing for `renew_within` seconds while you "
    "hold a device, you count as dead: it is made safe (lasers and heaters off) and given to the next. If something is "
    "refused, the message says who has the device, or which limit there is; do not try again blindly."
)
"""What an agent is told when it comes."""
_POINTS = 120
"""Values of a history that an agent gets: as many as a curve needs. More are averaged."""
_PIXELS = 512
"""Pixels on the longer side of a frame that an agent gets: a language model sees no more."""
_HELD = 60.0
"""Seconds without a word after which an agent that has a device counts as dead, unless it asked for another time."""


class Named(Parameters):
    """A device."""

    device: str = Field(description="Its name or alias.")


class Quantity(Wait, Named):
    """A property of a device."""

    property: str = Field(description="Its name, as describe_device shows it.")


class NewValue(Value, Named):
    """What a property is set to."""

    property: str = Field(description="Its name, as describe_device shows it.")


class Command(Call, Named):
    """A command of a device, with its arguments."""

    command: str = Field(description="Its name, as describe_device shows it.")


class Past(Parameters):
    """A part of a history."""

    quantity: str = Field(description="DEVICE.PROPERTY, one of those that testbed_status shows as telemetry.")
    seconds: float = Field(3600.0, gt=0, le=1e9, description="How far back it goes.")


class Camera(Parameters):
    """A camera, and the scale of its picture."""

    camera: str = Field(description="Its name.")
    low: float | None = Field(None, description="The value that is to be black; by default the smallest one.")
    high: float | None = Field(None, description="The value that is to be white; by default the largest one.")


class Newest(Parameters):
    """How many runs."""

    most: int = Field(20, ge=1, le=200, description="How many, the newest first.")


class OneRun(Parameters):
    """A run."""

    run: str = Field(description="Its name, as list_runs shows it.")


class Hold(Wait):
    """Devices that are to be held."""

    devices: list[str] = Field(min_length=1, max_length=64, description="Names or aliases; all of them or none.")
    renew_within: float = Field(
        _HELD, ge=SHORTEST_LOCK, le=LONGEST_LOCK,
        description="Seconds: who says nothing for longer counts as dead. Each use of a tool counts.",
    )  # fmt: skip


class StopOne(Ending):
    """An experiment that is to end."""

    experiment: str = Field(description="Its name.")


@dataclass(frozen=True)
class Image:
    """A picture that an agent gets, with what is to be known of it."""

    png: bytes
    facts: dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One thing that an agent can do.

    Attributes:
        handle: does it; its docstring describes it.
        takes: the model of its arguments.
        changes: whether it needs a grant.
    """

    handle: Callable[[Any, asyncio.Event], Awaitable[Any]]
    takes: type[Parameters] = Parameters
    changes: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.handle.__name__

    @property
    def text(self) -> str:
        """What it does, for the agent."""
        return inspect.getdoc(self.handle) or ""

    @property
    def schema(self) -> dict[str, Any]:
        """Its arguments (JSON Schema)."""
        return self.takes.model_json_schema()


class Agent:
    """One agent. It may send its requests over several connections.

    Args:
        visitor: who it is, and what it may do.
        actions: carries out what it asks for.
        lookout: knows what is going on.
    """

    def __init__(self, visitor: Visitor, actions: Actions, lookout: Lookout) -> None:
        self._visitor = visitor
        self._actions = actions
        self._lookout = lookout
        self._lock: str | None = None
        self._devices: frozenset[str] = frozenset()
        self.tools = {
            tool.name: tool
            for tool in (
                Tool(self.testbed_status), Tool(self.list_devices), Tool(self.describe_device, Named),
                Tool(self.read_property, Quantity), Tool(self.history, Past), Tool(self.frame, Camera),
                Tool(self.list_experiments), Tool(self.list_runs, Newest), Tool(self.describe_run, OneRun),
                Tool(self.hold, Hold, changes=True), Tool(self.release, changes=True),
                Tool(self.set_property, NewValue, changes=True), Tool(self.call_command, Command, changes=True),
                Tool(self.make_safe, Named, changes=True), Tool(self.run_experiment, Start, changes=True),
                Tool(self.stop_experiment, StopOne, changes=True), Tool(self.stop_everything, changes=True),
            )
        }  # fmt: skip

    @property
    def usable(self) -> list[Tool]:
        """The tools that it may use."""
        granted = self._visitor.access >= Access.CONTROL
        return [tool for tool in self.tools.values() if granted or not tool.changes]

    async def use(self, name: str, arguments: dict[str, Any], left: asyncio.Event) -> Any:
        """Use a tool; return what comes of it, as plain data or as an ``Image``.

        Args:
            name: of the tool.
            arguments: of the tool, by name.
            left: set when the agent has gone; then it counts as dead.

        Raises:
            Problem: there is no such tool, the agent may not use it, or its arguments are wrong.
            Exception: what a device answers.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise Problem(404, f"there is no tool {name!r}, there are {', '.join(self.tools)}")
        if tool.changes and self._visitor.access < Access.CONTROL:
            raise Problem(
                403, self._visitor.why_not or f"{name} changes something, which a person must grant to this agent: "
                "`catkit-devices serve --grant NAME`, or `catkit-devices mcp --grant NAME`"
            )  # fmt: skip
        if tool.changes:
            require_grant(self._visitor)  # it may have ended since the request came
        try:
            given = tool.takes.model_validate(arguments)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()
            )
            raise Problem(400, f"{name}: {wrong}") from None
        if self._lock is not None:
            await self._renew(self._lock, tool)
        try:
            return await tool.handle(given, left)
        except asyncio.CancelledError:
            left.set()
            raise
        finally:
            if left.is_set() and self._visitor.access >= Access.CONTROL:
                self._actions.locks.end_agent(self._visitor.agent)

    async def _renew(self, lock: str, tool: Tool) -> None:
        """Keep what it holds for as long again. If it holds it no more, it must know before it changes anything."""
        try:
            await self._actions.locks.renew(lock)
        except Problem as problem:
            if not tool.changes:
                return
            self._lock = None
            devices = ", ".join(sorted(self._devices))
            raise Problem(
                problem.status, f"you do not hold {devices} any more: you have said nothing for too long, or the grant "
                "was withdrawn. What you left on was made safe. Nothing was done now; hold again if you may"
            ) from None  # fmt: skip

    def _lock_for(self, device: str) -> str | None:
        return self._lock if self._actions.devices.name_of(device) in self._devices else None

    # --- looking

    async def testbed_status(self, _: Any, __: asyncio.Event) -> Any:
        """Return the state of the testbed: safety checks, trip, experiments, last readings, messages, cameras.

        What is not known says so: do not take it for safe.
        """
        status = await self._lookout.status()
        return {
            **{key: status[key] for key in ("name", "state", "silent", "safety", "telemetry")},
            "experiments": {name: one["state"] for name, one in status["experiments"].items()},
            "messages": status["messages"][-10:],
            "cameras": await self._actions.look(self._actions.devices.cameras),
            "you_hold": sorted(self._devices)
            if self._lock is not None and self._actions.locks.holds(self._lock)
            else [],
        }

    async def list_devices(self, _: Any, __: asyncio.Event) -> Any:
        """List the devices with driver, state, and who has each since when, and who waits."""
        status = await self._lookout.status()
        return {"devices": status["devices"]}

    async def describe_device(self, given: Named, _: asyncio.Event) -> Any:
        """Return what a device can do: properties with unit, limits, choices and doc; commands with their arguments."""
        return await self._actions.devices.describe(given.device)

    async def read_property(self, given: Quantity, left: asyncio.Event) -> Any:
        """Read a property of a device.

        Without a grant: the last reading of telemetry, or a shared property of an open device. With one: any property;
        the device is opened if it is closed, and its mutex is taken if the property is not shared.
        """
        if self._visitor.access < Access.CONTROL:
            return await self._actions.devices.glance(given.device, given.property)
        return await self._actions.devices.read(
            self._visitor, given.device, given.property, given.wait, left.wait(), self._lock_for(given.device)
        )

    async def history(self, given: Past, _: asyncio.Event) -> Any:
        """Return how a quantity was over time: mean, lowest and highest value, in seconds before now."""
        client = self._actions.client
        found = await self._actions.look(partial(history_of, client, given.quantity, time.time() - given.seconds, None))
        now = time.time()
        return {"quantity": found["quantity"], "unit": found["unit"], "points": thinned(found["points"], now)}

    async def frame(self, given: Camera, _: asyncio.Event) -> Any:
        """Return the newest frame of a camera as a picture, with its scale, and how old it is."""
        frame = await self._actions.devices.frame(given.camera)
        return await self._actions.look(partial(_seen, frame, given))

    async def list_experiments(self, _: Any, __: asyncio.Event) -> Any:
        """List the experiments that run or have run, and those that can be started, with their parameters."""
        status = await self._lookout.status()
        return {"experiments": status["experiments"], "offered": self._actions.experiments.offered()}

    async def list_runs(self, given: Newest, _: asyncio.Event) -> Any:
        """List the recorded runs, the newest first."""
        return {"runs": await self._actions.look(partial(runs_of, self._actions.client, given.most))}

    async def describe_run(self, given: OneRun, _: asyncio.Event) -> Any:
        """Return what a run has recorded: its parameters, outcome, tags, events and files."""
        client = self._actions.client
        return await self._actions.look(lambda: description_of_run(run_path(client, given.run)))

    # --- acting

    async def hold(self, given: Hold, left: asyncio.Event) -> Any:
        """Hold devices for yourself until you release them, for several steps that belong together."""
        if self._lock is not None:
            raise Problem(409, f"you hold {', '.join(sorted(self._devices))} already: release that first")
        got = await self._actions.locks.lock(self._visitor, given.devices, given.wait, given.renew_within, left.wait())
        self._lock, self._devices = got["lock"], frozenset(got["devices"])
        return {"devices": got["devices"], "renew_within": got["renew_within"]}

    async def release(self, _: Any, __: asyncio.Event) -> Any:
        """Give back what you hold. The devices stay as they are: switch off first what must not stay on."""
        if self._lock is None:
            raise Problem(409, "you hold nothing")
        lock, self._lock = self._lock, None
        return await self._actions.locks.unlock(lock)

    async def set_property(self, given: NewValue, left: asyncio.Event) -> Any:
        """Set a property of a device, within its limits; return what it is now."""
        return await self._actions.devices.write(
            self._visitor,
            given.device,
            given.property,
            given.value,
            given.wait,
            left.wait(),
            self._lock_for(given.device),
        )

    async def call_command(self, given: Command, left: asyncio.Event) -> Any:
        """Run a command of a device; return what it returns."""
        return await self._actions.devices.call(
            self._visitor, given.device, given.command, given.arguments, given.named, given.wait, left.wait(),
            self._lock_for(given.device),
        )  # fmt: skip

    async def make_safe(self, given: Named, _: asyncio.Event) -> Any:
        """Make a device safe now, whoever has it. It never waits."""
        return await self._actions.emergency.make_safe(self._visitor, given.device)

    async def run_experiment(self, given: Start, _: asyncio.Event) -> Any:
        """Start one of the experiments that are offered; return the name of its run when it has begun."""
        return await self._actions.experiments.start(self._visitor, given.experiment, given.parameters)

    async def stop_experiment(self, given: StopOne, _: asyncio.Event) -> Any:
        """Stop an experiment, or let it end with its current step."""
        return await self._actions.experiments.stop(self._visitor, given.experiment, finish=given.finish)

    async def stop_everything(self, _: Any, __: asyncio.Event) -> Any:
        """STOP, in an emergency: stop every experiment and make every device safe, whoever has it."""
        return await self._actions.emergency.stop(self._visitor)


def thinned(points: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Return a history with at most ``_POINTS`` values: means, each with the lowest and the highest value."""
    size = -(-len(points) // _POINTS) or 1
    return [_mean(points[first : first + size], now) for first in range(0, len(points), size)]


def _mean(points: Sequence[dict[str, Any]], now: float) -> dict[str, Any]:
    numbers = [one for one in points if isinstance(one["value"], int | float)]
    made: dict[str, Any] = {"seconds_ago": round(now - points[0]["time"], 1), "value": points[0]["value"]}
    if numbers:
        count = sum(one["readings"] for one in numbers)
        made["value"] = sum(one["value"] * one["readings"] for one in numbers) / count
        made["lowest"] = min(one["lowest"] for one in numbers)
        made["highest"] = max(one["highest"] for one in numbers)
    problem = next((one["problem"] for one in points if one["problem"]), None)
    return {**made, "problem": problem} if problem else made


def _seen(frame: Any, given: Camera) -> Image:
    import numpy as np

    array = frame.array
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    colour = array.ndim != 2
    black = given.low if given.low is not None or colour else low
    white = given.high if given.high is not None or colour else high
    picture = picture_of(array, black, white, _PIXELS)
    full = float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else None
    return Image(
        picture.png,
        plain({
            "number": frame.number, "seconds_old": round(frame.age, 3), "shape": list(array.shape),
            "type": str(array.dtype), "lowest": low, "highest": high, "mean": float(np.nanmean(array)),
            "saturated": None if full is None else int((array == full).sum()),
            "black": picture.low, "white": picture.high, "every_nth_pixel": picture.step,
        }),
    )  # fmt: skip
