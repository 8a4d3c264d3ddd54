"""What visitors of the web service do with a testbed: each thing in a session of the visitor's own.

What could wait for a mutex runs in other threads than STOP, breaking a lock and resetting the safety: so these always
find a free thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at, same_path, set_at
from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import CatkitDevicesError, ConfigurationError, nearest
from catkit_devices.multiprocessing import acting_as, current_owner
from catkit_devices.plain import plain, plain_json
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.processes.logs import report
from catkit_devices.testbed.trip import UNREACHABLE
from catkit_devices.web.access import Visitor
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from catkit_devices._base.standby import Errand
    from catkit_devices.multiprocessing import NamedSession
    from catkit_devices.multiprocessing.locks.owner import Owner
    from catkit_devices.multiprocessing.types.stream import Frame
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import DeviceEntry

__all__ = ["CLOSED", "LONGEST_LOCK", "LONGEST_WAIT", "SAFE", "SHORTEST_LOCK", "Actions"]

LONGEST_WAIT = 60.0
"""Seconds that a request may wait for somebody who has a device."""
SHORTEST_LOCK, LONGEST_LOCK = 2.0, 300.0
"""Seconds within which a lock must be renewed: a visitor that says nothing for longer counts as dead."""
SAFE = "safe"
"""What STOP tells of a device that was open, and was made safe."""
CLOSED = "closed: nothing was sent to it"
"""What STOP tells of a device that was closed: how its instrument is, is not known here."""
_MOST_LOCKS = 64
"""Locks that visitors may have at the same time."""
_THREADS, _LOOKS, _URGENT_THREADS = 64, 8, 16
"""Threads for what may wait for a mutex or an instrument, for looking, and for what must never wait for either."""
_SAFE_IN_TIME = 2.0
"""Seconds for which STOP waits for devices to be safe before it answers; making them safe goes on after that."""
_WATCH = 0.5
"""Seconds between two looks whether somebody who has a lock is silent."""
_FRAME_WAIT = 5.0
"""Seconds to wait for a frame of a camera that has none, or only an old one."""
_LOOK = 0.1
"""Seconds between two looks whether the experiments have ended after STOP."""
_UNTIL_ENDED = 15.0
"""Seconds, beside the ``stop_timeout`` of the testbed, until STOP no longer waits for the experiments to end."""

_log = logging.getLogger(__name__)


class _Acting:
    """A session of one visitor, for which threads act."""

    def __init__(self, session: NamedSession, owner: Owner) -> None:
        self.session = session
        self._owner = owner

    def run(self, function: Callable[[], Any]) -> Any:
        try:
            with acting_as(self._owner):
                return function()
        except SystemExit as end:  # it would end this service
            raise CatkitDevicesError(
                f"a driver tried to end the program (SystemExit: {end.code}); it must raise an error that says what is "
                "wrong"
            ) from end


@dataclass(eq=False)
class _Held:
    """The lock of a visitor.

    Attributes:
        devices: which it has.
        acting: the session that holds it.
        section: what is left to give it back.
        lasts: seconds for which it lasts without a sign of the visitor.
        until: when that time is over, on the clock of this computer.
        busy: how many requests of the visitor are being carried out: meanwhile it is not silent.
        agent: to whom it belongs, if that is an agent.
    """

    devices: tuple[str, ...]
    acting: _Acting
    section: Any
    lasts: float
    until: float = 0.0
    busy: int = 0
    agent: str = ""

    def renew(self) -> None:
        self.until = time.monotonic() + self.lasts


@dataclass
class _Stopping:
    """What came of a STOP."""

    experiments: list[str] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)


class Actions:
    """Carries out what visitors ask for. To be used in one event loop.

    Args:
        client: of the testbed.
        experiments: those that visitors may start, by name.
    """

    def __init__(self, client: TestbedClient, experiments: Mapping[str, type[Experiment]] | None = None) -> None:
        self.client = client
        self.experiments = dict(experiments or {})
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="web")
        self._looks = ThreadPoolExecutor(_LOOKS, thread_name_prefix="web, look")
        self._urgent = ThreadPoolExecutor(_URGENT_THREADS, thread_name_prefix="web, urgent")
        self._held: dict[str, _Held] = {}
        self._resetting = threading.Lock()

    def close(self) -> None:
        """End in good order: locks of visitors end as if these had died, because nobody can give them back any more."""
        for held in list(self._held.values()):
            held.acting.session.abandon()
        self._held.clear()
        for threads in (self._threads, self._looks, self._urgent):
            threads.shutdown(wait=False, cancel_futures=True)

    def _say(self, text: str) -> None:
        """Have the testbed write down what a visitor did, in its log and in that of every run."""

        def say() -> None:
            with contextlib.suppress(*UNREACHABLE):
                report(self.client.manager, text, "web", {})

        asyncio.get_running_loop().run_in_executor(self._looks, say)

    def _note(self, visitor: Visitor, what: str, target: str, reason: str = "") -> None:
        """Have the testbed write down in its audit trail what a visitor did, where no server does that by itself."""
        note = partial(self.client.note_in_audit_trail, what, target, reason)
        asyncio.get_running_loop().run_in_executor(self._looks, self._as_visitor, visitor, note)

    def tell_of_grant(self, visitor: Visitor, agent: str, what: str) -> None:
        """Have it written down that a visitor has granted something to an agent, or has taken it away."""
        self._say(f"{_who(visitor)}: agent {agent!r} {what}")
        self._note(visitor, what, f"agent {agent!r}")

    # --- looking: no mutex

    async def look(self, function: Callable[[], Any]) -> Any:
        """Run a function that reads files or asks servers, and waits for no mutex."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, function)

    async def describe(self, name: str) -> dict[str, Any]:
        """Return what a device can do."""
        self._require(name)
        return dict(await self.look(partial(self._described, name)))

    def _described(self, name: str) -> Any:
        return self.client.devices[name].describe()

    async def glance(self, name: str, path: str) -> dict[str, Any]:
        """Return a property of a device for somebody who only looks: without its mutex, and without opening it.

        Raises:
            Problem: that is not possible.
        """
        entry = self._require(name)
        quantity = f"{entry.name}.{path}"
        if quantity in self.client.telemetry:
            reading = self.client.telemetry[quantity]
            problem = {} if reading.problem is None else {"reason": reading.problem}
            return {
                "device": entry.name, "property": path, "unit": reading.unit, **plain_json(reading.value), **problem,
                "time": reading.time, "source": "telemetry",
            }  # fmt: skip
        loop = asyncio.get_running_loop()
        return dict(await loop.run_in_executor(self._threads, self._glance, entry.name, path))

    def _glance(self, name: str, path: str) -> dict[str, Any]:
        device = self.client.devices.made(name)
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
            for name, one in self.client.frames.items()
        }

    async def frame(self, name: str) -> Frame:
        """Return the newest frame of a camera. No mutex is taken: the server of the camera publishes its frames.

        Raises:
            Problem: the configuration declares no frames of it.
            WaitTimeoutError: no frame comes; says why.
        """

        def newest() -> Frame:
            try:
                camera = self.client.frames[name]
            except ConfigurationError as error:
                raise Problem(404, str(error)) from None
            return camera.newest(_FRAME_WAIT)

        return await asyncio.get_running_loop().run_in_executor(self._threads, newest)

    # --- acting: each in a session

    async def read(
        self, visitor: Visitor, name: str, path: str, wait: float, left: Awaitable[Any], lock: str | None = None
    ) -> dict[str, Any]:
        """Return a property of a device; take its mutex if that is needed, and open it if it is closed."""
        self._require(name)

        def work() -> dict[str, Any]:
            device = self.client.devices[name]
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

        return dict(await self._for(visitor, lock, work, left))

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
        self._require(name)

        def work() -> dict[str, Any]:
            device = self.client.devices[name]
            found, facts = _member(device.describe(), "properties", path)
            if not facts["writable"]:
                raise Problem(422, f"device {name!r}: {found!r} can only be read")
            with device.lock(timeout=wait):
                set_at(device, found, value(facts) if callable(value) else value)
                now = plain_json(get_at(device, found)) if facts["readable"] else {"value": None}
            return {"device": device.name, "property": found, "unit": facts["unit"], **now, "time": time.time()}

        done = dict(await self._for(visitor, lock, work, left))
        self._say(f"{_who(visitor)} has set {done['device']}.{done['property']} to {done['value']!r}")
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
        self._require(name)

        def work() -> dict[str, Any]:
            device = self.client.devices[name]
            found, facts = _member(device.describe(), "commands", command)
            positional, by_name = arguments(facts) if callable(arguments) else (arguments, named)
            _check_arguments(name, found, facts, positional, by_name)
            with device.lock(timeout=wait):
                result = get_at(device, found)(*positional, **by_name)
            return {"device": device.name, "command": found, **_as_result(result), "time": time.time()}

        done = dict(await self._for(visitor, lock, work, left))
        self._say(f"{_who(visitor)} has called {done['device']}.{done['command']}")
        return done

    async def _for(self, visitor: Visitor, lock: str | None, work: Callable[[], Any], left: Awaitable[Any]) -> Any:
        """Do something for a visitor, in the session of its lock or in one of its own."""
        if lock is not None:
            held = self._lock_of(lock)
            held.busy += 1
            try:
                return await self._until_gone(held.acting, work, left, lambda: self._bury(lock))
            finally:
                held.busy -= 1
                held.renew()
        acting = await self.look(partial(self._begin, visitor))
        end = acting.session.close
        try:
            return await self._until_gone(acting, work, left, acting.session.abandon)
        except asyncio.CancelledError:  # the service ends before this is done
            end = acting.session.abandon
            raise
        finally:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._urgent, end))

    async def _until_gone(
        self, acting: _Acting, work: Callable[[], Any], left: Awaitable[Any], bury: Callable[[], object]
    ) -> Any:
        """Do something; if the visitor goes away before it is done, end its session as that of a process that dies."""
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._threads, acting.run, work)
        leaving = asyncio.ensure_future(left)
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await loop.run_in_executor(self._urgent, bury)
            return await working
        except asyncio.CancelledError:  # whoever asked for this has gone, or the service ends
            if not working.done():
                loop.run_in_executor(self._urgent, bury)
            raise
        finally:
            leaving.cancel()
            if not working.done():
                working.add_done_callback(_ignore)

    def _begin(self, visitor: Visitor) -> _Acting:
        host = None if visitor.local else visitor.host
        name = f"agent {visitor.agent!r}" if visitor.agent else f"visitor of the web service at {visitor.host}"
        session = self.client.manager.session(name, host)
        with session:
            return _Acting(session, current_owner())

    # --- locks

    async def lock(
        self, visitor: Visitor, names: Sequence[str], wait: float, lasts: float, left: Awaitable[Any]
    ) -> dict[str, Any]:
        """Lock devices for a visitor until it gives them back, or says nothing for ``lasts`` seconds.

        Raises:
            Problem: visitors have too many locks already.
            MutexTimeoutError: somebody else had a device for too long.
        """
        devices = tuple(dict.fromkeys(self._require(name).name for name in names))
        if len(self._held) >= _MOST_LOCKS:
            raise Problem(429, f"visitors have {_MOST_LOCKS} locks already, which is as many as there may be")
        acting = await self.look(partial(self._begin, visitor))
        section = None

        def work() -> Any:
            section = self.client.lock(*devices, timeout=wait)
            section.__enter__()  # left by `unlock`, in another request
            return section

        try:
            section = await self._until_gone(acting, work, left, acting.session.abandon)
        finally:
            if section is None:
                end = asyncio.get_running_loop().run_in_executor(self._urgent, acting.session.abandon)
                await asyncio.shield(end)
        token = secrets.token_urlsafe(24)
        held = self._held[token] = _Held(devices, acting, section, lasts, agent=visitor.agent)
        held.renew()
        self._say(f"{_who(visitor)} has locked {', '.join(devices)}")
        return {"lock": token, "devices": list(devices), "renew_within": lasts}

    async def renew(self, token: str) -> dict[str, Any]:
        """Keep a lock for as long again."""
        held = self._lock_of(token)
        held.renew()
        return {"devices": list(held.devices), "renew_within": held.lasts}

    def holds(self, token: str) -> bool:
        """Return whether a lock still lasts."""
        return token in self._held

    async def unlock(self, token: str) -> dict[str, Any]:
        """Give a lock back."""
        held = self._lock_of(token)
        if held.busy:
            raise Problem(409, "another request with this lock is still being carried out")
        del self._held[token]

        def leave() -> None:
            try:
                held.acting.run(lambda: held.section.__exit__(None, None, None))
            finally:
                held.acting.session.close()

        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._urgent, leave))
        return {"devices": list(held.devices)}

    def end_agent(self, agent: str) -> None:
        """End the locks of an agent as if it had died: their devices are made safe, and given on. It waits for nothing.

        Args:
            agent: its name.
        """
        for token in [token for token, held in self._held.items() if held.agent == agent]:
            asyncio.get_running_loop().run_in_executor(self._urgent, self._bury, token)

    async def watch_over_locks(self) -> None:
        """End the locks of those that say nothing for too long, again and again; to be run as a task."""
        while True:
            try:
                await self._bury_the_silent()
            except Exception:  # noqa: BLE001 - it must go on after any error: else a dead visitor kept a device
                _log.exception("the web service could not end the locks of silent visitors; trying again")
            await asyncio.sleep(_WATCH)

    async def _bury_the_silent(self) -> None:
        now = time.monotonic()
        for token, held in list(self._held.items()):
            if not held.busy and held.until < now:
                self._say(
                    f"{held.acting.session.name}, which had {', '.join(held.devices)}, has said nothing for "
                    f"{held.lasts:g} s: it counts as dead"
                )
                await asyncio.get_running_loop().run_in_executor(self._urgent, self._bury, token)

    def _bury(self, token: str) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            held.acting.session.abandon()

    def _lock_of(self, token: str) -> _Held:
        held = self._held.get(token)
        if held is None:
            raise Problem(410, "there is no such lock: it was given back, was broken, or was not renewed in time")
        return held

    # --- what never waits for a mutex

    async def urgently(self, function: Callable[[], Any]) -> Any:
        """Run a function in a thread that is free for it."""
        return await asyncio.get_running_loop().run_in_executor(self._urgent, function)

    def _as_visitor(self, visitor: Visitor, function: Callable[[], Any]) -> Any:
        """Run a function in a session of the visitor's, so that the audit trail names the visitor."""
        acting = self._begin(visitor)
        try:
            return acting.run(function)
        finally:
            acting.session.close()

    async def stop(self, visitor: Visitor) -> dict[str, Any]:
        """Stop every experiment and make every device safe, whoever has it.

        When the experiments have ended, the devices are made safe once more: an experiment may have switched one on
        before it heard of the STOP.
        """
        reason = f"STOP by {_who(visitor)}"
        self._say(f"{reason}: all experiments are stopped, all devices are made safe")
        self._note(visitor, "stopped", "everything")
        came_to: _Stopping = await self.urgently(partial(self._stop, reason))
        return {"experiments": came_to.experiments, "devices": came_to.devices}

    def _stop(self, reason: str) -> _Stopping:
        done: dict[str, str] = {}
        safe = self._make_all_safe(done)
        stopping = _Stopping()
        told = all_at_once({"stop": partial(self._stop_experiments, reason, stopping)}, "STOP")["stop"]
        deadline = time.monotonic() + _SAFE_IN_TIME
        for name, errand in safe.items():
            if not errand.wait(max(0.0, deadline - time.monotonic())):
                stopping.devices[name] = "not known: it is still being made safe"
            elif errand.failure is not None:
                stopping.devices[name] = f"not known to be safe: {errand.failure}"
            else:
                stopping.devices[name] = done[name]
        if not told.wait(max(0.0, deadline - time.monotonic())) or told.failure is not None:
            stopping.devices["experiments"] = f"not known to have been told to stop: {told.failure or 'no answer'}"
        if stopping.experiments or "experiments" in stopping.devices:
            threading.Thread(target=self._stop_again, name="STOP, once more", daemon=True).start()
        return stopping

    def _stop_experiments(self, reason: str, stopping: _Stopping) -> None:
        for name in self._running():
            stopping.experiments.append(name)
            try:
                self.client.stop(name, reason=reason)
            except CatkitDevicesError:
                if name in self._running():  # else it has ended by itself meanwhile
                    raise

    def _stop_again(self) -> None:
        deadline = time.monotonic() + self.client.layout.stop_timeout + _UNTIL_ENDED
        with contextlib.suppress(*UNREACHABLE):
            while True:
                if not self._running() or time.monotonic() > deadline:
                    break
                time.sleep(_LOOK)
        self._make_all_safe({})

    def _running(self) -> list[str]:
        return [one.name for one in self.client.progress() if one.state not in ENDED]

    def _make_all_safe(self, done: dict[str, str]) -> dict[str, Errand]:
        """Begin to make all devices safe; what was done for each is put into ``done``."""

        def make_safe(entry: DeviceEntry) -> None:
            done[entry.name] = self._make_safe(entry)

        return all_at_once({one.name: partial(make_safe, one) for one in self.client.layout.devices}, "make safe")

    def _make_safe(self, entry: DeviceEntry) -> str:
        """Make a device safe; return what that came to, in words."""
        device = self.client.devices.made(entry.name)
        if device is None or device.state == "closed":
            if device is not None:
                device.make_safe()  # it may have been closed without being made safe
            return CLOSED
        device.make_safe()
        return SAFE if entry.says_how_safe else "not known: neither its driver nor the configuration says how"

    async def make_safe(self, visitor: Visitor, name: str) -> dict[str, Any]:
        """Make one device safe, whoever has it."""
        entry = self._require(name)
        self._say(f"{_who(visitor)} makes {entry.name} safe")
        self._note(visitor, "made safe", entry.name)
        return {"device": entry.name, "is": await self.urgently(partial(self._make_safe, entry))}

    async def break_lock(self, visitor: Visitor, name: str, reason: str) -> dict[str, Any]:
        """Take a mutex from whoever has it."""
        said = f"{reason} ({_who(visitor)})"
        holder = await self.urgently(partial(self._as_visitor, visitor, partial(self.client.break_lock, name, said)))
        return {"mutex": name, "holder": holder}

    async def reset_safety(self, visitor: Visitor, reason: str) -> dict[str, Any]:
        """Allow changes again after a trip."""
        if not self._resetting.acquire(blocking=False):
            raise Problem(409, "the safety is being reset already: every check is read once more")

        def reset() -> None:
            try:
                self.client.reset_safety(f"{reason} ({_who(visitor)})")
            finally:
                self._resetting.release()

        await self.urgently(partial(self._as_visitor, visitor, reset))
        return {"reset": True}

    async def stop_experiment(self, visitor: Visitor, name: str, *, finish: bool) -> dict[str, Any]:
        """Stop an experiment, or let it end with its current step."""
        work = partial(self.client.stop, name, reason=f"stopped by {_who(visitor)}")
        await self.urgently(partial(self._as_visitor, visitor, partial(self.client.finish, name) if finish else work))
        return {"experiment": name}

    # --- experiments

    async def change_queue(self, visitor: Visitor, do: str, **what: Any) -> dict[str, Any]:
        """Change the queue of experiments; see ``TestbedClient.change_queue``. Returns the queue."""
        change = partial(self._as_visitor, visitor, partial(self.client.change_queue, do, **what))
        return dict(await asyncio.get_running_loop().run_in_executor(self._threads, change))

    async def add_to_queue(self, visitor: Visitor, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Add one of the experiments that are offered to the queue of the testbed; return the queue."""
        kind = self._offered(name)
        _made(kind, name, parameters)  # it says what is wrong with them
        entry = {
            "what": f"{inspect.getfile(kind)}:{kind.__name__}", "parameters": _as_words(kind, parameters),
            "directory": str(Path.cwd()), "python": sys.executable, "search_path": os.environ.get("PYTHONPATH"),
            "user": _who(visitor),
        }  # fmt: skip
        return await self.change_queue(visitor, "add", entry=entry)

    async def start_experiment(self, visitor: Visitor, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Start one of the experiments that are offered; it is a child process of this one."""
        experiment = _made(self._offered(name), name, parameters)
        began: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def run() -> None:
            def tick() -> None:
                if experiment.run_path is not None:
                    loop.call_soon_threadsafe(_settle, began, {"experiment": name, "run": experiment.run_path.name})

            try:
                self.client.run(experiment, on_tick=tick)
                tick()
            except BaseException as error:  # noqa: BLE001 - it is told to the visitor, or stands in the run's log
                if experiment.run_path is not None:
                    tick()
                loop.call_soon_threadsafe(_fail, began, error)

        threading.Thread(target=run, name=f"experiment {name}", daemon=True).start()
        started = await began
        self._say(f"{_who(visitor)} has started {name}")
        self._note(visitor, "started", name)
        return started

    def _offered(self, name: str) -> type[Experiment]:
        kind = self.experiments.get(name)
        if kind is None:
            listed = ", ".join(self.experiments) or "none: `serve --experiment FILE[:CLASS]` offers one"
            raise Problem(404, f"no experiment {name!r} is offered here, there is {listed}")
        return kind

    def offered(self) -> dict[str, dict[str, Any]]:
        """Return the experiments that visitors may start, with their parameters."""
        return {
            name: {
                parameter: {"type": str(one.annotation), "required": one.required,
                            "default": None if one.required else plain(one.default)}
                for parameter, one in kind.parameters().items()
            }
            for name, kind in self.experiments.items()
        }  # fmt: skip

    def name_of(self, name: str) -> str:
        """Return the name of a device, which may be given by an alias.

        Raises:
            Problem: there is none.
        """
        return str(self._require(name).name)

    def _require(self, name: str) -> Any:
        try:
            return self.client.layout.device(name)
        except ConfigurationError as error:
            raise Problem(404, str(error)) from None


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else CatkitDevicesError(f"it ended: {error!r}"))


def _ignore(done: asyncio.Future[Any]) -> None:
    """Take what came of something that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


def _made(kind: type[Experiment], name: str, parameters: Mapping[str, Any]) -> Experiment:
    try:
        return kind(**parameters)
    except (TypeError, ValueError) as error:
        raise Problem(422, f"experiment {name!r}: {error}") from error


def _as_words(kind: type[Experiment], parameters: Mapping[str, Any]) -> list[str]:
    """Return parameters as the command line has them."""
    known = kind.parameters()
    words: list[str] = []
    for name, value in parameters.items():
        option = name.replace("_", "-")
        if known[name].annotation is bool:
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def _who(visitor: Visitor) -> str:
    return f"agent {visitor.agent!r}" if visitor.agent else f"a visitor of the web service at {visitor.host}"


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
