"""What visitors do with devices: describe, read, set, call, and see the frames of cameras."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at, same_path, set_at
from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.plain import plain_json
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from catkit_devices.multiprocessing.types.stream import Frame
    from catkit_devices.web.access import Visitor
    from catkit_devices.web.locks import VisitorLocks
    from catkit_devices.web.sessions import VisitorSessions

__all__ = ["LONGEST_WAIT", "DeviceActions"]

LONGEST_WAIT = 60.0
"""Seconds that a request may wait for somebody who has a device."""
_FRAME_WAIT = 5.0
"""Seconds to wait for a frame of a camera that has none, or only an old one."""


class DeviceActions:
    """Describes, reads, sets and calls devices for visitors. For one event loop.

    Args:
        sessions: in which that is done.
        locks: that visitors have.
    """

    def __init__(self, sessions: VisitorSessions, locks: VisitorLocks) -> None:
        self._sessions = sessions
        self._locks = locks
        self._client = sessions.client

    async def describe(self, name: str) -> dict[str, Any]:
        """Return what a device can do."""
        self._sessions.device(name)
        return dict(await self._sessions.look(partial(self._described, name)))

    def _described(self, name: str) -> Any:
        return self._client.devices[name].describe()

    async def glance(self, name: str, path: str) -> dict[str, Any]:
        """Return a property of a device for somebody who only looks: without its mutex, and without opening it.

        Raises:
            Problem: that is not possible.
        """
        entry = self._sessions.device(name)
        quantity = f"{entry.name}.{path}"
        if quantity in self._client.telemetry:
            reading = self._client.telemetry[quantity]
            problem = {} if reading.problem is None else {"reason": reading.problem}
            return {
                "device": entry.name, "property": path, "unit": reading.unit, **plain_json(reading.value), **problem,
                "time": reading.time, "source": "telemetry",
            }  # fmt: skip
        return dict(await self._sessions.patiently(partial(self._glance, entry.name, path)))

    def _glance(self, name: str, path: str) -> dict[str, Any]:
        device = self._client.devices.made(name)
        state = "closed" if device is None else str(device.state)
        if device is None or state != "open":
            raise Problem(
                409, f"device {name!r} is {state}: it is read without its mutex only while it is open. Opening it is a "
                "change, for which the token for control is needed"
            )  # fmt: skip
        found, facts = _member(device.describe(), "properties", path)
        if not facts["shared"]:
            raise Problem(
                403, f"device {name!r}: {found!r} is not shared: reading it takes the mutex, for which the token for "
                "control is needed"
            )  # fmt: skip
        value = get_at(device, found)
        return {
            "device": name, "property": found, "unit": facts["unit"], **plain_json(value), "time": time.time(),
            "source": "device",
        }  # fmt: skip

    def cameras(self) -> dict[str, dict[str, Any]]:
        """Return the cameras whose frames can be seen, and why no frame comes, where none does."""
        return {
            name: {"frames": one.stream.published, "age": one.age, "problem": one.problem}
            for name, one in self._client.frames.items()
        }

    async def frame(self, name: str) -> Frame:
        """Return the newest frame of a camera. No mutex is taken: the server of the camera publishes its frames.

        Raises:
            Problem: the configuration declares no frames of it.
            WaitTimeoutError: no frame comes; says why.
        """

        def newest() -> Frame:
            try:
                camera = self._client.frames[name]
            except ConfigurationError as error:
                raise Problem(404, str(error)) from None
            return camera.newest(_FRAME_WAIT)

        found: Frame = await self._sessions.patiently(newest)
        return found

    async def read(
        self, visitor: Visitor, name: str, path: str, wait: float, left: Awaitable[Any], lock: str | None = None
    ) -> dict[str, Any]:
        """Return a property of a device; take its mutex if that is needed, and open it if it is closed."""
        self._sessions.device(name)

        def work() -> dict[str, Any]:
            device = self._client.devices[name]
            found, facts = _member(device.describe(), "properties", path)
            if not facts["readable"]:
                raise Problem(422, f"device {name!r}: {found!r} can only be set")
            if facts["shared"]:
                value = get_at(device, found)
            else:
                with device.lock(timeout=wait):
                    value = get_at(device, found)
            return {
                "device": device.name, "property": found, "unit": facts["unit"], **plain_json(value),
                "time": time.time(), "source": "device",
            }  # fmt: skip

        return dict(await self._locks.act_for(visitor, lock, work, left))

    async def write(
        self,
        visitor: Visitor,
        name: str,
        path: str,
        value: Any,
        wait: float,
        left: Awaitable[Any],
        lock: str | None = None,
    ) -> dict[str, Any]:
        """Set a property of a device; return what it is now.

        Args:
            visitor: who wants that.
            name: of the device.
            path: of the property.
            value: which value; or a function that returns it, given the description of the property.
            wait: seconds for somebody else who has the device.
            left: done when the visitor has gone; then the visitor counts as dead.
            lock: the token of a lock that the visitor has.
        """
        self._sessions.device(name)

        def work() -> dict[str, Any]:
            device = self._client.devices[name]
            found, facts = _member(device.describe(), "properties", path)
            if not facts["writable"]:
                raise Problem(422, f"device {name!r}: {found!r} can only be read")
            with device.lock(timeout=wait):
                set_at(device, found, value(facts) if callable(value) else value)
                now = plain_json(get_at(device, found)) if facts["readable"] else {"value": None}
            return {"device": device.name, "property": found, "unit": facts["unit"], **now, "time": time.time()}

        done = dict(await self._locks.act_for(visitor, lock, work, left))
        self._sessions.say(f"{visitor} has set {done['device']}.{done['property']} to {done['value']!r}")
        return done

    async def call(
        self,
        visitor: Visitor,
        name: str,
        command: str,
        arguments: Sequence[Any] | Callable[[Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]],
        named: Mapping[str, Any],
        wait: float,
        left: Awaitable[Any],
        lock: str | None = None,
    ) -> dict[str, Any]:
        """Run a command of a device; return what it returns. Otherwise as :meth:`write`."""
        self._sessions.device(name)

        def work() -> dict[str, Any]:
            device = self._client.devices[name]
            found, facts = _member(device.describe(), "commands", command)
            positional, by_name = arguments(facts) if callable(arguments) else (arguments, named)
            _check_arguments(name, found, facts, positional, by_name)
            with device.lock(timeout=wait):
                result = get_at(device, found)(*positional, **by_name)
            return {"device": device.name, "command": found, **_as_result(result), "time": time.time()}

        done = dict(await self._locks.act_for(visitor, lock, work, left))
        self._sessions.say(f"{visitor} has called {done['device']}.{done['command']}")
        return done

    def name_of(self, name: str) -> str:
        """Return the name of a device, which may be given by an alias.

        Raises:
            Problem: there is none.
        """
        return str(self._sessions.device(name).name)


def _member(description: Mapping[str, Any], kind: str, path: str) -> tuple[str, Mapping[str, Any]]:
    """Return the name of a property or command as the device spells it, and its description."""
    found = same_path(path, description[kind])
    if found is None:
        singular = "property" if kind == "properties" else "command"
        error = ConfigurationError(
            f"device {description['name']!r} has no {singular} {path!r}, expected one of "
            f"{', '.join(description[kind]) or 'none'}",
            suggestion=nearest(path, description[kind]),
        )
        raise Problem(404, str(error))
    return found, description[kind][found]


def _check_arguments(
    device: str, command: str, facts: Mapping[str, Any], positional: Sequence[Any], named: Mapping[str, Any]
) -> None:
    """Refuse arguments that a command does not take, as Python would, but before anything is done."""
    parameters = facts["parameters"]
    kinds = [one["kind"] for one in parameters.values()]
    most = sum(kind in ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD") for kind in kinds)
    by_name = {name for name, one in parameters.items() if one["kind"] in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")}
    too_many = len(positional) > most and "VAR_POSITIONAL" not in kinds
    unknown = [name for name in named if name not in by_name and "VAR_KEYWORD" not in kinds]
    if too_many or unknown:
        what = f"no argument {unknown[0]!r}" if unknown else f"at most {most} arguments"
        raise Problem(422, f"device {device!r}: {command}{facts['signature']} takes {what}")


def _as_result(result: Any) -> dict[str, Any]:
    made = plain_json(result)
    return {"result": made.pop("value"), **made}
