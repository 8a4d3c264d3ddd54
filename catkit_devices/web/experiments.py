"""What visitors do with experiments: start and stop them, and change the queue."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.plain import plain
from catkit_devices.web.problems import Problem
from catkit_devices.web.sessions import require_grant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.web.access import Visitor
    from catkit_devices.web.sessions import VisitorSessions

__all__ = ["ExperimentActions"]


class ExperimentActions:
    """Starts, stops and queues experiments for visitors. For one event loop.

    Args:
        sessions: in which that is done.
        offered: the experiments that visitors may start, by name.
    """

    def __init__(self, sessions: VisitorSessions, offered: Mapping[str, type[Experiment]]) -> None:
        self._sessions = sessions
        self._client = sessions.client
        self.kinds = dict(offered)

    def offered(self) -> dict[str, dict[str, Any]]:
        """Return the experiments that visitors may start, with their parameters."""
        return {
            name: {
                parameter: {"type": str(one.annotation), "required": one.required,
                            "default": None if one.required else plain(one.default)}
                for parameter, one in kind.parameters().items()
            }
            for name, kind in self.kinds.items()
        }  # fmt: skip

    async def start(self, visitor: Visitor, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Start one of the experiments that are offered; it is a child process of this one."""
        experiment = _made(self._offered(name), name, parameters)
        began: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def run() -> None:
            def tick() -> None:
                if experiment.run_path is not None:
                    loop.call_soon_threadsafe(_settle, began, {"experiment": name, "run": experiment.run_path.name})

            try:
                self._client.run(experiment, on_tick=tick)
                tick()
            except BaseException as error:  # noqa: BLE001 - it is told to the visitor, or stands in the run's log
                if experiment.run_path is not None:
                    tick()
                loop.call_soon_threadsafe(_fail, began, error)

        threading.Thread(target=run, name=f"experiment {name}", daemon=True).start()
        started = await began
        if visitor.grant is not None and visitor.grant.over:  # it has ended while the experiment was being started
            await self._sessions.urgently(partial(self._client.stop, name, reason=f"the grant of {visitor} has ended"))
            require_grant(visitor)
        self._sessions.say(f"{visitor} has started {name}")
        self._sessions.note(visitor, "started", name)
        return started

    async def stop(self, visitor: Visitor, name: str, *, finish: bool) -> dict[str, Any]:
        """Stop an experiment, or let it end with its current step."""
        work = partial(self._client.stop, name, reason=f"stopped by {visitor}")
        await self._sessions.urgently(
            self._sessions.as_visitor(visitor, partial(self._client.finish, name) if finish else work)
        )
        return {"experiment": name}

    async def add_to_queue(self, visitor: Visitor, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Add one of the experiments that are offered to the queue of the testbed; return the queue."""
        kind = self._offered(name)
        _made(kind, name, parameters)  # it says what is wrong with them
        entry = {
            "what": f"{inspect.getfile(kind)}:{kind.__name__}", "parameters": _as_words(kind, parameters),
            "directory": str(Path.cwd()), "python": sys.executable, "search_path": os.environ.get("PYTHONPATH"),
            "user": str(visitor),
        }  # fmt: skip
        return await self.change_queue(visitor, "add", entry=entry)

    async def change_queue(self, visitor: Visitor, do: str, **what: Any) -> dict[str, Any]:
        """Change the queue of experiments; see ``TestbedClient.change_queue``. Returns the queue."""
        change = self._sessions.as_visitor(visitor, partial(self._client.change_queue, do, **what))
        return dict(await self._sessions.patiently(change))

    def _offered(self, name: str) -> type[Experiment]:
        kind = self.kinds.get(name)
        if kind is None:
            listed = ", ".join(self.kinds) or "none: `serve --experiment FILE[:CLASS]` offers one"
            raise Problem(404, f"no experiment {name!r} is offered here, there is {listed}")
        return kind


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else CatkitDevicesError(f"it ended: {error!r}"))


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
