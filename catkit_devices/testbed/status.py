"""A running testbed as plain data: for displays, scripts and people.

Each server is asked on its own, and for a bounded time. An unknown state is reported as not known. A display that went
on showing the last known state could show a tripped bench as safe.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError, ServerNotFoundError, ServerUnresponsiveError
from catkit_devices.testbed.experiments.experiment_queue import QUEUE
from catkit_devices.testbed.experiments.progress import ENDED, EXPERIMENTS
from catkit_devices.testbed.frames.publisher import cameras_of
from catkit_devices.testbed.processes.finding import LAYOUT, QUIET, silence_of, silent_testbed
from catkit_devices.testbed.processes.logs import MESSAGES
from catkit_devices.testbed.processes.talk import News, NoNewsError
from catkit_devices.testbed.safety.check import CheckState
from catkit_devices.testbed.safety.monitor import MONITOR
from catkit_devices.testbed.safety.other_devices import OTHER_DEVICES
from catkit_devices.testbed.safety.rescue import RESCUED
from catkit_devices.testbed.telemetry.view import Reading
from catkit_devices.testbed.trip import SAFETY_CHECKS, SAFETY_TRIP, UNREACHABLE, connected, permit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.errors import SafetyError
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.experiments.progress import Progress
    from catkit_devices.testbed.frames.view import FramesStatus, FramesView
    from catkit_devices.testbed.layout import DeviceEntry, Layout
    from catkit_devices.testbed.telemetry.view import TelemetryView

__all__ = ["ANSWER_TIMEOUT", "NOT_KNOWN", "Looking", "states", "unheard"]

NOT_KNOWN = "not known"
"""Every text about an unknown state begins with this."""
ANSWER_TIMEOUT = 5.0
"""Seconds for the answers of all servers together."""
_LATE = 2.0
"""Seconds by which the reading of a safety check may be late before that is reported."""


class Looking:
    """Looks at a testbed from outside.

    Args:
        layout: of the testbed.
        devices: of the testbed.
        telemetry: of the testbed.
        frames: of its cameras.
    """

    def __init__(self, layout: Layout, devices: Devices, telemetry: TelemetryView, frames: FramesView) -> None:
        self._layout = layout
        self._devices = devices
        self._telemetry = telemetry
        self._frames = frames
        self._own = News(partial(_facts_of_testbed, layout), f"testbed {layout.name!r}")

    @cached_property
    def _news(self) -> dict[str, News[dict[str, Any]]]:
        return {
            server: News(
                partial(_facts_of_server, self._layout, self._devices, self._frames, server),
                _called(self._layout, server),
            )
            for server in self._layout.servers
        }

    def status(self, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Return devices, experiments, checks and messages; see ``TestbedClient.status``.

        Args:
            timeout: seconds for all answers together.

        Raises:
            ServerUnresponsiveError: the testbed's own server does not answer; names its processes.
            ServerNotFoundError: it is gone.
        """
        deadline = time.monotonic() + timeout
        own, servers = self._ask(deadline)
        answered = [news for server, news in self._news.items() if not isinstance(servers[server], Exception)]
        age = max(news.age for news in (self._own, *answered))  # what was true then may not be true any more
        about = own["about"]
        silent = [] if about.get("ending") else [*self._silent_servers(servers), *_silent_watchers(self._layout, own)]
        trip = own["checks"].get(SAFETY_TRIP) or next(
            (known["permit"]["tripped"] for known in servers.values() if _tripped(known)), None
        )
        state = "ending" if about.get("ending") else "tripped" if trip is not None else "running"
        return {
            "name": self._layout.name,
            "server": self._layout.server,
            "pid": about.get("pid"),
            "host": about.get("host"),
            "started": about.get("started"),
            "state": "silent" if silent and state == "running" else state,
            "time": time.time() - age,
            "silent": silent,
            "simulated": self._layout.simulation is not None,
            "devices": {entry.name: _device(entry, servers[entry.server]) for entry in self._layout.devices},
            "experiments": {one.name: _experiment(one, own["sessions"]) for one in own["experiments"]},
            "safety": {
                "tripped": None if trip is None else str(trip),
                "detected": getattr(trip, "detected", None),
                "checks": {name: _check(state) for name, state in states(own["checks"]).items()},
                "permit": _permit(self._layout, servers),
                "not_safe": _not_safe(self._layout, own, servers),
            },
            "queue": about.get(QUEUE) or {"paused": None, "entries": []},
            "telemetry": {name: self._reading(name) for name in self._telemetry},
            "frames": {
                entry.name: _frames(servers[entry.server], entry.name)
                for entry in self._layout.devices
                if entry.frames is not None
            },
            "messages": own["messages"],
        }

    def _reading(self, name: str) -> dict[str, Any]:
        try:
            return self._telemetry[name]._asdict()
        except UNREACHABLE as error:
            return Reading(None, None, 0.0, f"{NOT_KNOWN}: {error}")._asdict()

    def locks(self, timeout: float = ANSWER_TIMEOUT) -> list[dict[str, Any]]:
        """Return every mutex, devices' and plain named ones; see ``TestbedClient.locks``."""
        own, servers = self._ask(time.monotonic() + timeout)
        names = {entry.name for entry in self._layout.devices}
        found = []
        for entry in self._layout.devices:
            known = servers[entry.server]
            lock = {"name": entry.name, "server": entry.server, "device": True, **_holding(entry, known)}
            found.append({**lock, "unknown": str(known) if isinstance(known, Exception) else None})
        for server, known in {self._layout.server: own, **servers}.items():
            objects = [] if isinstance(known, Exception) else known["objects"]
            found += [
                {
                    "name": one["name"],
                    "server": server,
                    "device": False,
                    "holder": one["holder"],
                    "waiters": one["waiters"],
                    "unknown": None,
                }
                for one in objects
                if one["kind"] == "mutex" and one["name"] not in names
            ]
        return found

    def _silent_servers(self, servers: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = []
        for server, known in servers.items():
            if isinstance(known, Exception):
                name, _, pid = self._news[server].name.partition(" (pid ")
                seconds = known.seconds if isinstance(known, NoNewsError) else None
                found.append({"what": name, "pid": int(pid.removesuffix(")")) if pid else None, "seconds": seconds})
        return found

    def _ask(self, deadline: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the testbed's server and each of the others say; an error for each that did not answer."""
        number = self._own.want()
        numbers = {server: news.want() for server, news in self._news.items()}
        try:
            own = self._own.get(max(0.0, deadline - time.monotonic()), number)
        except NoNewsError as error:
            raise silent_testbed(self._layout.server, error.seconds) from None
        servers: dict[str, Any] = {}
        for server, news in self._news.items():
            try:
                servers[server] = news.get(max(0.0, deadline - time.monotonic()), numbers[server])
            except UNREACHABLE as error:
                servers[server] = error
        return own, servers


def unheard(last: Mapping[str, Any], seconds: float, trip: SafetyError | None = None) -> dict[str, Any]:
    """Return the little that is known of a testbed that does not answer, from its last status.

    Args:
        last: its last status.
        seconds: for how long there has been no news of it.
        trip: the trip, if it is known to have tripped.
    """
    problem = f"no news for {seconds:.0f} s"
    tripped = last["safety"]["tripped"] if trip is None else str(trip)
    return {
        **last,
        "state": "silent",
        "stale_since": last["time"],
        "time": time.time(),
        "silent": [{"what": f"testbed {last['name']!r}", "pid": last["pid"], "seconds": seconds}],
        "devices": {
            name: {**device, "state": NOT_KNOWN, "holder": None, "waiters": []}
            for name, device in last["devices"].items()
        },
        "experiments": {
            name: experiment if experiment["state"] in ENDED else {**experiment, "state": NOT_KNOWN, "silent": seconds}
            for name, experiment in last["experiments"].items()
        },
        "telemetry": {
            name: {**reading, "value": None, "problem": problem} for name, reading in last["telemetry"].items()
        },
        "frames": {camera: {**facts, "problem": problem} for camera, facts in last["frames"].items()},
        "safety": {
            **last["safety"],
            "tripped": tripped or f"{NOT_KNOWN}: {problem}",
            "permit": None,
            "checks": {
                name: {**check, "problem": problem, "silent": seconds}
                for name, check in last["safety"]["checks"].items()
            },
        },
    }


def states(checks: Mapping[str, Any]) -> dict[str, CheckState]:
    """Return the state of every check from the shared dictionary."""
    return {name: state for name, state in dict(checks).items() if isinstance(state, CheckState)}


# --- asking, each in a thread of its own ---


def _facts_of_testbed(layout: Layout) -> dict[str, Any]:
    manager = connected(layout.server)
    status = manager.status()
    return {
        "about": manager.get_dict(LAYOUT).copy(),
        "checks": manager.get_dict(SAFETY_CHECKS).copy(),
        "experiments": sorted(manager.get_dict(EXPERIMENTS).copy().values(), key=lambda progress: progress.started),
        "messages": manager.get_dict(MESSAGES).get("newest") or [],
        "other_devices": manager.get_dict(OTHER_DEVICES).copy(),
        "rescued": manager.get_dict(RESCUED).copy(),
        "sessions": status["sessions"],
        "objects": status["objects"],
    }


def _facts_of_server(layout: Layout, devices: Devices, frames: FramesView, server: str) -> dict[str, Any]:
    objects = connected(server).status()["objects"]
    made = {one["name"]: one for one in objects if one["kind"] == "object"}
    found = {}
    for entry in layout.devices:
        if entry.server == server and entry.name in made:
            one = made[entry.name]
            found[entry.name] = {
                "state": _state(entry, devices),
                "holder": one.get("holder"),
                "waiters": one.get("waiters", []),
            }
    has_permit = server in layout.device_servers
    return {
        "objects": objects,
        "devices": found,
        "permit": permit_of(server).status() if has_permit else None,
        "frames": {camera: frames[camera].status() for camera, _ in cameras_of(layout, server)},
    }


def _state(entry: DeviceEntry, devices: Devices) -> str:
    try:
        device = devices.made(entry.name)
        return "closed" if device is None else str(device.state)
    except ServerUnresponsiveError:
        raise
    except CatkitDevicesError as error:
        return f"{NOT_KNOWN}: {error}"


# --- what is made of the answers ---


def _called(layout: Layout, server: str) -> str:
    """Return a server's name as people know it, with its process."""
    from catkit_devices.multiprocessing.wire.endpoint import endpoint

    kind = "device server" if server in layout.device_servers else "server"
    try:
        return f"{kind} {server!r} (pid {endpoint(server).pid})"
    except ServerNotFoundError:
        return f"{kind} {server!r}"


def _silent_watchers(layout: Layout, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the processes of the testbed that should send a message regularly, and do not."""
    pid, sessions = own["about"].get("pid"), own["sessions"]
    silences = [("the testbed's process", pid, silence_of(sessions, pid))]
    if layout.checked:
        monitors = {session["pid"] for session in sessions if session["process"] == MONITOR}
        silences += [(f"the {MONITOR}", monitor, silence_of(sessions, monitor)) for monitor in monitors]
    return [
        {"what": what, "pid": pid, "seconds": silence}
        for what, pid, silence in silences
        if silence is None or silence > QUIET
    ]


def _tripped(known: Any) -> bool:
    return not isinstance(known, Exception) and known["permit"] is not None and known["permit"]["tripped"] is not None


def _experiment(progress: Progress, sessions: list[Any]) -> dict[str, Any]:
    silence = None if progress.state in ENDED else silence_of(sessions, progress.pid)
    return {**asdict(progress), "silent": silence if silence is not None and silence > QUIET else None}


def _check(state: CheckState) -> dict[str, Any]:
    test = {key: value for key, value in asdict(state.test).items() if key not in {"implementation", "plugins"}}
    now = time.time()
    problem, silent = state.problem, None
    if state.time and now - state.time > state.test.interval + state.test.timeout + _LATE:
        silent = now - state.time
        problem = f"not read for {silent:.0f} s, expected every {state.test.interval:g} s"
    return {
        **asdict(state),
        "test": {**test, "expected": state.test.expected()},
        "problem": problem,
        "silent": silent,
        "age": now - state.passed if state.passed else None,
    }


def _permit(layout: Layout, servers: Mapping[str, Any]) -> float | None:
    """Return for how many seconds devices may still be changed without a renewal of the permit; None: no limit."""
    if layout.permit_timeout is None:
        return None
    left = [
        known["permit"]["remaining"] if not isinstance(known, Exception) and known["permit"]["given"] else 0.0
        for server, known in servers.items()
        if server in layout.device_servers
    ]
    return min(left, default=None)


def _not_safe(layout: Layout, own: Mapping[str, Any], servers: Mapping[str, Any]) -> dict[str, str]:
    """Return, by name, why a device that was to be made safe is not known to be safe."""
    found: dict[str, str] = {}
    for server in layout.device_servers:
        known = servers[server]
        if not isinstance(known, Exception):
            found.update(known["permit"]["not_safe"])
            continue
        devices: dict[Any, str] = {(server, one.name): one.name for one in layout.devices if one.server == server}
        devices.update({key: name for key, name in own["other_devices"].items() if key[0] == server})
        for key, name in devices.items():
            why = own["rescued"].get(key, f"its server does not answer: {known}")
            if why:
                found[f"{name} (not in the configuration)" if name in found else name] = why
    return found


def _device(entry: DeviceEntry, known: Any) -> dict[str, Any]:
    state = "closed"
    if isinstance(known, Exception):
        state = f"{NOT_KNOWN}: {known}"
    elif entry.name in known["devices"]:
        state = known["devices"][entry.name]["state"]
    return {
        "driver": entry.driver,
        "address": entry.address,
        "aliases": list(entry.aliases),
        "server": entry.server,
        "state": state,
        "says_how_safe": entry.says_how_safe,
        **_holding(entry, known),
    }


def _frames(known: Any, camera: str) -> FramesStatus:
    if isinstance(known, Exception):
        return {"number": None, "rate": None, "time": 0.0, "problem": f"{NOT_KNOWN}: {known}"}
    facts: FramesStatus = known["frames"][camera]
    return facts


def _holding(entry: DeviceEntry, known: Any) -> dict[str, Any]:
    found = {} if isinstance(known, Exception) else known["devices"].get(entry.name, {})
    return {"holder": found.get("holder"), "waiters": found.get("waiters", [])}
