"""The REST interface: devices, locks, experiments, runs, telemetry, history and events, under ``/api/v1``."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response, StreamingResponse

from catkit_devices.datalog.exporting import FORMATS, export
from catkit_devices.plain import plain, plain_json
from catkit_devices.web.access import Access
from catkit_devices.web.devices import LONGEST_WAIT
from catkit_devices.web.locks import LONGEST_LOCK, SHORTEST_LOCK
from catkit_devices.web.operations import Asked, Operation, Parameters, answer_json, description_of, gone
from catkit_devices.web.pictures import picture_of
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.web.access import Keys
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = [
    "Call",
    "Ending",
    "Rest",
    "Start",
    "Value",
    "Wait",
    "description_of_run",
    "history_of",
    "run_file",
    "run_path",
    "runs_of",
]

_STILL_THERE = 15.0
"""Seconds after which a line without meaning is sent to those who listen to events: so a broken line is noticed."""
_EXPORTS = 2
"""Runs that are exported at the same time: each needs a processor and room on the disk."""
_LONGEST_HEADER = 2000
"""Characters of what a format leaves out that an answer says."""
_MOST_POINTS = 20_000
"""Values of a history in one answer."""


class Wait(Parameters):
    """For how long a request waits for a device."""

    wait: float = Field(5.0, ge=0, le=LONGEST_WAIT, description="Seconds to wait for somebody else who has the device.")


class Value(Wait):
    """What a property is set to."""

    value: Any = Field(description='A number, text, truth value or list; text may carry a unit: "50 mA".')


class Call(Wait):
    """The arguments of a command."""

    arguments: list[Any] = Field([], max_length=64, description="In order.")
    named: dict[str, Any] = Field({}, description="By name.")


class NewLock(Wait):
    """A lock that is asked for."""

    devices: list[str] = Field(min_length=1, max_length=64, description="Names or aliases; all of them or none.")
    renew_within: float = Field(
        30.0, ge=SHORTEST_LOCK, le=LONGEST_LOCK,
        description="Seconds within which the lock is to be renewed; who says nothing for longer counts as dead.",
    )  # fmt: skip


class Reason(Parameters):
    """Why something is done."""

    reason: str = Field(min_length=1, max_length=500, description="Why: for those whom it concerns, and for the logs.")


class Start(Parameters):
    """An experiment that is to be started."""

    experiment: str = Field(description="One of those that are offered.")
    parameters: dict[str, Any] = Field({}, description="Its parameters by name.")


class Ending(Parameters):
    """How an experiment ends."""

    finish: bool = Field(False, description="Whether it may complete its current step.")


class Span(Parameters):
    """A part of a history."""

    since: float | None = Field(None, ge=0, le=1e12, description="Seconds since 1970 UTC; by default a day ago.")
    until: float | None = Field(None, ge=0, le=1e12, description="Seconds since 1970 UTC; by default now.")


class Resume(Parameters):
    """Where a listener goes on."""

    after: str | None = Field(None, max_length=64, description="As the header Last-Event-ID: of the last event.")


class NewGrant(Parameters):
    """What an agent is granted."""

    agent: str = Field(
        min_length=1, max_length=40, pattern=r"^[\w .-]+$", description="Its name, as all messages will show it."
    )
    lasts: float = Field(28_800.0, gt=0, le=604_800, description="Seconds; by default eight hours, at most a week.")


class View(Parameters):
    """How a frame is to come."""

    format: Literal["png", "raw"] = Field("png", description="A picture, or the numbers as they lie in memory.")
    low: float | None = Field(None, description="For a picture: the value that is to be black.")
    high: float | None = Field(None, description="For a picture: the value that is to be white.")
    most: int | None = Field(
        None, ge=16, le=16384, description="For a picture: pixels on the longer side; of more, every n-th is taken."
    )


class Numbers(Parameters):
    """Experiments of the queue."""

    numbers: list[int] = Field(min_length=1, max_length=1000, description="Their numbers, as the queue shows them.")


class Move(Numbers):
    """Where experiments of the queue are put."""

    to: int = Field(1, ge=1, le=1_000_000, description="Their place among those that wait: 1 is run next.")


class Choice(Parameters):
    """Which runs."""

    outcome: Literal["finished", "failed", "stopped", "running", "killed", "unknown", "unreadable"] | None = None
    most: int = Field(100, ge=1, le=1000, description="How many, the newest first.")


class Rest:
    """The operations on one testbed.

    Args:
        client: of the testbed.
        actions: carries out what is asked for.
        lookout: knows what is going on.
        keys: the tokens.
    """

    def __init__(self, client: TestbedClient, actions: Actions, lookout: Lookout, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._exporting = asyncio.Semaphore(_EXPORTS)
        self._actions = actions
        self._lookout = lookout
        control = Access.CONTROL
        self.operations = (
            Operation("GET", "/status", self.status),
            Operation("GET", "/devices", self.list_devices),
            Operation("GET", "/devices/{device}", self.describe_device),
            Operation("GET", "/devices/{device}/properties/{property}", self.read_property, query=Wait, locks=True),
            Operation(
                "PUT", "/devices/{device}/properties/{property}", self.set_property, control, body=Value, locks=True
            ),
            Operation(
                "POST", "/devices/{device}/commands/{command}", self.call_command, control, body=Call, locks=True
            ),
            Operation("POST", "/devices/{device}/make-safe", self.make_safe, control),
            Operation("GET", "/locks", self.list_locks),
            Operation("POST", "/locks", self.lock_devices, control, body=NewLock),
            Operation("POST", "/locks/renew", self.renew_lock, control, locks=True),
            Operation("POST", "/locks/release", self.release_lock, control, locks=True),
            Operation("POST", "/locks/{mutex}/break", self.break_lock, control, body=Reason),
            Operation("POST", "/stop", self.stop_everything, control),
            Operation("POST", "/safety/reset", self.reset_safety, control, body=Reason),
            Operation("GET", "/experiments", self.list_experiments),
            Operation("POST", "/experiments", self.start_experiment, control, body=Start),
            Operation("POST", "/experiments/{experiment}/stop", self.stop_experiment, control, body=Ending),
            Operation("GET", "/queue", self.show_queue),
            Operation("POST", "/queue", self.add_to_queue, control, body=Start),
            Operation("POST", "/queue/move", self.move_in_queue, control, body=Move),
            Operation("POST", "/queue/cancel", self.cancel_in_queue, control, body=Numbers),
            Operation("POST", "/queue/pause", self.pause_queue, control, body=Reason),
            Operation("POST", "/queue/resume", self.resume_queue, control),
            Operation("GET", "/runs", self.list_runs, query=Choice),
            Operation("GET", "/runs/{run}", self.describe_run),
            Operation("GET", "/runs/{run}/scalars/{tag}", self.read_scalars),
            Operation(
                "GET", "/runs/{run}/files/{file:path}", self.download_file, answers="application/octet-stream"
            ),
            Operation(
                "GET", "/runs/{run}/export/{format}", self.export_run, answers="application/octet-stream"
            ),
            Operation("GET", "/frames", self.list_cameras),
            Operation("GET", "/frames/{camera}", self.read_frame, query=View, answers="image/png"),
            Operation("GET", "/telemetry", self.read_telemetry),
            Operation("GET", "/history/{quantity}", self.read_history, query=Span),
            Operation("GET", "/events", self.listen_to_events, query=Resume, answers="text/event-stream"),
            Operation("GET", "/grants", self.list_grants, control),
            Operation("POST", "/grants", self.grant_control, control, body=NewGrant),
            Operation("POST", "/grants/{agent}/revoke", self.revoke_grant, control),
            Operation("GET", "/openapi.json", self.describe_interface),
        )  # fmt: skip
        self._description = description_of(
            self.operations, f"testbed {client.name!r}", version("catkit-devices")
        )  # fmt: skip

    # --- looking

    async def status(self, _: Asked) -> Any:
        """Return devices, experiments, safety and messages, as `catkit-devices status --json` prints them.

        What is not known says so. Nothing is waited for but the servers' answers, for two seconds.
        """
        return await self._lookout.status()

    async def list_devices(self, _: Asked) -> Any:
        """List the devices with driver, address, state, and who has each since when and from where."""
        status = await self._lookout.status()
        return {"testbed": status["name"], "state": status["state"], "devices": status["devices"]}

    async def describe_device(self, asked: Asked) -> Any:
        """Return what a device can do: properties with unit, limits, choices and doc; commands with their arguments."""
        return await self._actions.devices.describe(asked.path["device"])

    async def read_property(self, asked: Asked) -> Any:
        """Read a property of a device.

        Without the token for control: the last reading of telemetry, or a shared property of an open device, without
        its mutex. With it: any property; the device is opened if it is closed, and its mutex is taken if the property
        is not shared.
        """
        device, path = asked.path["device"], asked.path["property"]
        if asked.visitor.access < Access.CONTROL:
            return await self._actions.devices.glance(device, path)
        left = gone(asked.request)
        return await self._actions.devices.read(asked.visitor, device, path, asked.query.wait, left, asked.lock)

    async def list_locks(self, _: Asked) -> Any:
        """List every mutex, who has it since when and from where, and who waits for it."""
        return {"locks": await self._actions.look(self._client.locks)}

    # --- changing

    async def set_property(self, asked: Asked) -> Any:
        """Set a property of a device; return what it is now."""
        body = asked.body
        return await self._actions.devices.write(
            asked.visitor, asked.path["device"], asked.path["property"], body.value, body.wait, gone(asked.request),
            asked.lock,
        )  # fmt: skip

    async def call_command(self, asked: Asked) -> Any:
        """Run a command of a device; return what it returns.

        If the connection is closed before it has returned, the visitor counts as dead: the command is cancelled, and
        the device is made safe.
        """
        body = asked.body
        return await self._actions.devices.call(
            asked.visitor, asked.path["device"], asked.path["command"], body.arguments, body.named, body.wait,
            gone(asked.request), asked.lock,
        )  # fmt: skip

    async def make_safe(self, asked: Asked) -> Any:
        """Make a device safe now, whoever has it. It never waits for a mutex."""
        return await self._actions.emergency.make_safe(asked.visitor, asked.path["device"])

    async def lock_devices(self, asked: Asked) -> Any:
        """Lock devices for exclusive use; return the token of the lock.

        Send it as the header Lock-Token with each request that uses the devices. Each such request renews the lock, and
        so does `POST /locks/renew`. A visitor that says nothing for `renew_within` seconds counts as dead: its devices
        are made safe, and given to whoever waits.
        """
        body = asked.body
        return answer_json(
            await self._actions.locks.lock(
                asked.visitor, body.devices, body.wait, body.renew_within, gone(asked.request)
            ), 201
        )  # fmt: skip

    async def renew_lock(self, asked: Asked) -> Any:
        """Keep the lock of the header Lock-Token for as long again."""
        return await self._actions.locks.renew(_lock_of(asked))

    async def release_lock(self, asked: Asked) -> Any:
        """Give back the lock of the header Lock-Token; the devices stay as they are."""
        return await self._actions.locks.unlock(_lock_of(asked))

    async def break_lock(self, asked: Asked) -> Any:
        """Take a mutex from whoever has it. It never waits; the reason is told to the holder, and logged."""
        return await self._actions.emergency.break_lock(asked.visitor, asked.path["mutex"], asked.body.reason)

    async def stop_everything(self, asked: Asked) -> Any:
        """STOP: stop every experiment and make every device safe, whoever has it. It never waits for a mutex.

        Returns what each device is after at most two seconds: safe, closed, or not known. When the experiments have
        ended, the devices are made safe once more.
        """
        return await self._actions.emergency.stop(asked.visitor)

    async def reset_safety(self, asked: Asked) -> Any:
        """Allow changes again after a trip of a safety check; every check is read anew, and must pass."""
        return await self._actions.emergency.reset_safety(asked.visitor, asked.body.reason)

    # --- experiments and runs

    async def list_experiments(self, _: Asked) -> Any:
        """List the experiments that run or have run, and those that can be started here, with their parameters."""
        status = await self._lookout.status()
        return {"experiments": status["experiments"], "offered": self._actions.experiments.offered()}

    async def start_experiment(self, asked: Asked) -> Any:
        """Start one of the experiments that the service was told to offer; it ends with the service."""
        body = asked.body
        return answer_json(
            await self._actions.experiments.start(asked.visitor, body.experiment, body.parameters), 201
        )  # fmt: skip

    async def stop_experiment(self, asked: Asked) -> Any:
        """Stop an experiment. It never waits for a mutex."""
        return await self._actions.experiments.stop(asked.visitor, asked.path["experiment"], finish=asked.body.finish)

    async def show_queue(self, _: Asked) -> Any:
        """Return the queue of experiments: why it is paused (null: it is not), and its entries with their states."""
        return await self._actions.look(self._client.queue)

    async def add_to_queue(self, asked: Asked) -> Any:
        """Add one of the experiments that are offered to the queue; return the queue, and the number of the new entry.

        The testbed runs them one after the other, whatever becomes of this service.
        """
        body = asked.body
        return answer_json(
            await self._actions.experiments.add_to_queue(asked.visitor, body.experiment, body.parameters), 201
        )  # fmt: skip

    async def move_in_queue(self, asked: Asked) -> Any:
        """Move experiments that wait to another place; return the queue."""
        body = asked.body
        return await self._actions.experiments.change_queue(asked.visitor, "move", numbers=body.numbers, to=body.to)

    async def cancel_in_queue(self, asked: Asked) -> Any:
        """Take experiments out of the queue; one that runs is stopped. Returns the queue."""
        return await self._actions.experiments.change_queue(asked.visitor, "cancel", numbers=asked.body.numbers)

    async def pause_queue(self, asked: Asked) -> Any:
        """Start no further experiment of the queue; return the queue."""
        return await self._actions.experiments.change_queue(asked.visitor, "pause", reason=asked.body.reason)

    async def resume_queue(self, asked: Asked) -> Any:
        """Let the queue go on; return it."""
        return await self._actions.experiments.change_queue(asked.visitor, "resume")

    async def list_runs(self, asked: Asked) -> Any:
        """List the recorded runs, the newest first."""
        choice = asked.query
        runs = await self._actions.look(partial(runs_of, self._client, choice.most, choice.outcome))
        return {"runs": runs}

    async def describe_run(self, asked: Asked) -> Any:
        """Return what a run has recorded: its parameters, outcome, tags, events and files."""
        return await self._actions.look(partial(description_of_run, run_path(self._client, asked.path["run"])))

    async def read_scalars(self, asked: Asked) -> Any:
        """Return the values of one scalar of a run, with the time of each."""
        path = run_path(self._client, asked.path["run"])
        return await self._actions.look(partial(_scalars_of_run, path, asked.path["tag"]))

    async def download_file(self, asked: Asked) -> Any:
        """Return a file of a run."""
        file = run_file(run_path(self._client, asked.path["run"]), asked.path["file"])
        return FileResponse(
            file, media_type="application/octet-stream", filename=file.name, content_disposition_type="attachment"
        )  # fmt: skip

    async def export_run(self, asked: Asked) -> Any:
        """Return a run as one file: `h5` (HDF5), `fits` or `csv` (scalars only); also of one that goes on.

        The header Left-Out says what this format cannot hold, percent-encoded; it is absent if there is nothing.
        """
        run, kind = run_path(self._client, asked.path["run"]), asked.path["format"]
        if f".{kind}" not in FORMATS:
            raise Problem(404, f"expected one of {', '.join(one[1:] for one in FORMATS)}, got {kind!r}")
        directory = tempfile.TemporaryDirectory(prefix="catkit-devices-export-")
        file = Path(directory.name) / f"{run.name}.{kind}"
        try:
            async with self._exporting:
                left_out = await self._actions.look(partial(export, run, file))
        except BaseException:
            directory.cleanup()
            raise
        headers = {"left-out": quote("; ".join(left_out)[:_LONGEST_HEADER])} if left_out else {}
        return FileResponse(
            file, media_type="application/octet-stream", filename=file.name, content_disposition_type="attachment",
            headers=headers, background=BackgroundTask(directory.cleanup),
        )  # fmt: skip

    # --- cameras, telemetry and events

    async def list_cameras(self, _: Asked) -> Any:
        """List the cameras whose frames can be seen, and why no frame comes, where none does."""
        return {"cameras": await self._actions.look(self._actions.devices.cameras)}

    async def read_frame(self, asked: Asked) -> Any:
        """Return the newest frame of a camera, as PNG or raw; it takes no mutex.

        Headers say which it is: Frame-Number, Frame-Time (seconds since 1970 UTC), Frame-Shape (rows,columns) and
        Frame-Type (as numpy writes it: `<u2` is 16 bits without sign, the smaller byte first). Raw are the numbers row
        by row. A picture of 8 or 16 bits without sign has the values themselves, unless `low` or `high` is given;
        others are scaled to 8 bits, and Frame-Black and Frame-White say which values are black and white.
        """
        view = asked.query
        frame = await self._actions.devices.frame(asked.path["camera"])
        array = frame.array
        headers = {
            "frame-number": str(frame.number), "frame-time": f"{frame.time:.6f}",
            "frame-shape": ",".join(map(str, array.shape)), "frame-type": array.dtype.str,
        }  # fmt: skip
        if view.format == "raw":
            return Response(await self._actions.look(array.tobytes), 200, headers, "application/octet-stream")
        picture = await self._actions.look(partial(picture_of, array, view.low, view.high, view.most))
        if not picture.exact:
            headers |= {"frame-black": f"{picture.low:g}", "frame-white": f"{picture.high:g}"}
        return Response(picture.png, 200, headers, "image/png")

    async def read_telemetry(self, _: Asked) -> Any:
        """Return the last reading of each quantity that the configuration marks as telemetry."""
        return {"telemetry": {name: self._reading(name) for name in self._client.telemetry}}

    def _reading(self, name: str) -> dict[str, Any]:
        reading = self._client.telemetry[name]
        return {**reading._asdict(), **plain_json(reading.value)}

    async def read_history(self, asked: Asked) -> Any:
        """Return the history of a quantity: readings of two days, averages of minutes and hours before that."""
        span = asked.query
        return await self._actions.look(
            partial(history_of, self._client, asked.path["quantity"], span.since, span.until)
        )  # fmt: skip

    async def listen_to_events(self, asked: Asked) -> Any:
        """Listen to what happens, as server-sent events: status, message, experiment, safety, lock, and gap.

        After a lost connection send the header Last-Event-ID (browsers do that by themselves): what was missed comes
        first; `gap` says that something may be missing.
        """
        after = asked.request.headers.get("last-event-id") or asked.query.after
        events = await self._lookout.listen(after)
        return StreamingResponse(self._stream(events), media_type="text/event-stream")

    async def _stream(self, events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        following = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({following}, timeout=_STILL_THERE)
                if not done:
                    yield b": still there\n\n"
                    continue
                try:
                    event = following.result()
                except StopAsyncIteration:
                    return
                text = json.dumps(plain(event.data), allow_nan=False)
                yield f"id: {self._lookout.id_of(event)}\nevent: {event.kind}\ndata: {text}\n\n".encode()
                following = asyncio.ensure_future(anext(events))
        finally:
            following.cancel()
            await asyncio.wait({following})
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator

    # --- agents

    async def list_grants(self, _: Asked) -> Any:
        """List the agents to which control is granted, and until when."""
        return {"grants": [{"agent": one.agent, "until": one.until} for one in self._keys.grants()]}

    async def grant_control(self, asked: Asked) -> Any:
        """Grant an agent control, and return the token for it, which is for `/mcp` only.

        What it does is in the audit trail under its name. Breaking locks and resetting the safety are left to people.
        """
        body = asked.body
        token = self._keys.grant(body.agent, body.lasts)
        self._actions.change_grant(asked.visitor, body.agent, "granted control")
        return answer_json({"agent": body.agent, "token": token, "lasts": body.lasts}, 201)

    async def revoke_grant(self, asked: Asked) -> Any:
        """Withdraw a grant. What the agent holds is made safe, and given to whoever waits."""
        agent = asked.path["agent"]
        if not self._keys.revoke(agent):
            raise Problem(404, f"nothing is granted to an agent {agent!r}")
        self._actions.change_grant(asked.visitor, agent, "revoked")
        return {"agent": agent}

    async def describe_interface(self, _: Asked) -> Any:
        """Return this description of the interface (OpenAPI 3.1)."""
        return Response(json.dumps(self._description), media_type="application/json")


def _lock_of(asked: Asked) -> str:
    if not asked.lock:
        raise Problem(400, "expected the token of the lock in the header Lock-Token")
    return asked.lock


def history_of(client: TestbedClient, name: str, since: float | None, until: float | None) -> dict[str, Any]:
    """Return the history of a quantity of a testbed.

    Raises:
        Problem: there is none.
    """
    from catkit_devices.errors import ConfigurationError, DataError
    from catkit_devices.testbed.telemetry.history import History

    try:
        with History(client.layout.history) as history:
            units = {one.name: one.unit for one in history.quantities()}
            points = history.points(name, time.time() - 86400 if since is None else since, until)
    except (ConfigurationError, DataError) as error:
        raise Problem(404, str(error)) from None
    return {
        "quantity": name, "unit": units[name], "left_out": max(0, len(points) - _MOST_POINTS),
        "points": [point._asdict() for point in points[-_MOST_POINTS:]],
    }  # fmt: skip


def runs_of(client: TestbedClient, most: int, outcome: str | None = None) -> list[dict[str, Any]]:
    """Return the main facts of the newest runs of a testbed."""
    from catkit_devices.datalog import find_runs, summarise

    found: list[dict[str, Any]] = []
    for path in reversed(find_runs(client.layout.runs)):
        summary = summarise(path)
        if outcome in (None, summary.outcome):
            found.append({
                **dataclasses.asdict(summary), "run": path.name, "path": str(path),
                "started": summary.started and summary.started.isoformat(),
                "ended": summary.ended and summary.ended.isoformat(),
            })  # fmt: skip
        if len(found) == most:
            break
    return found


def run_path(client: TestbedClient, name: str) -> Path:
    """Return the directory of a run; only the name of one that is listed is accepted.

    Raises:
        Problem: there is none.
    """
    from catkit_devices.datalog import find_runs

    for path in find_runs(client.layout.runs):
        if path.name == name and not path.is_symlink():
            return path
    raise Problem(404, f"there is no run {name!r}")


def run_file(run: Path, name: str) -> Path:
    """Return a file of a run; nothing outside of its directory.

    Raises:
        Problem: there is no such file in it.
    """
    try:
        file = (run / name).resolve(strict=True)
        inside = file.is_relative_to(run.resolve()) and file.is_file()
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise Problem(404, f"run {run.name!r} has no file {name!r}")
    return file


def description_of_run(path: Path) -> dict[str, Any]:
    """Return what a run has recorded, and its files."""
    from catkit_devices.datalog import RunReader, summarise

    summary = summarise(path)
    found: dict[str, Any] = {
        "run": path.name, "name": summary.name, "outcome": summary.outcome, "detail": summary.detail,
        "started": summary.started and summary.started.isoformat(),
        "ended": summary.ended and summary.ended.isoformat(),
    }  # fmt: skip
    if summary.outcome != "unreadable":
        with RunReader(path) as reader:
            found["parameters"] = reader.information.get("parameters", {})
            found["tags"] = [dataclasses.asdict(tag) for tag in reader.tags()]
            found["events"] = [
                {"kind": event.kind, "text": event.text, "time": event.time_ns / 1e9} for event in reader.events()
            ]
    files = (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    found["files"] = sorted(str(file.relative_to(path)) for file in files)
    return found


def _scalars_of_run(path: Path, tag: str) -> dict[str, Any]:
    from catkit_devices.datalog import RunReader
    from catkit_devices.errors import DataError

    with RunReader(path) as reader:
        try:
            found = reader.scalars(tag)
        except DataError as error:
            raise Problem(404, str(error)) from None
    times, values = found.times.astype("int64")[-_MOST_POINTS:] / 1e9, found.values[-_MOST_POINTS:]
    return {"run": path.name, "tag": tag, "unit": found.unit, "times": plain(times), "values": plain(values)}
