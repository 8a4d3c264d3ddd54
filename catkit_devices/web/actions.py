"""What visitors of the web service do with a testbed: each thing in a session of the visitor's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.web.devices import DeviceActions
from catkit_devices.web.emergency import Emergency
from catkit_devices.web.experiments import ExperimentActions
from catkit_devices.web.locks import VisitorLocks
from catkit_devices.web.sessions import VisitorSessions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.web.access import Visitor

__all__ = ["Actions"]


class Actions:
    """Carries out what visitors ask for. To be used in one event loop.

    Args:
        client: of the testbed.
        experiments: those that visitors may start, by name.

    Attributes:
        locks: those that visitors have.
        devices: to describe, read, set and call them.
        experiments: to start, stop and queue them.
        emergency: what never waits for a mutex.
    """

    def __init__(self, client: TestbedClient, experiments: Mapping[str, type[Experiment]] | None = None) -> None:
        self.client = client
        self._sessions = VisitorSessions(client)
        self.look = self._sessions.look
        self.locks = VisitorLocks(self._sessions)
        self.devices = DeviceActions(self._sessions, self.locks)
        self.experiments = ExperimentActions(self._sessions, experiments or {})
        self.emergency = Emergency(self._sessions)

    def close(self) -> None:
        """End in good order: locks of visitors end as if these had died."""
        self.locks.close()
        self._sessions.close()

    def change_grant(self, visitor: Visitor, agent: str, what: str) -> None:
        """End what an agent had until now, and have it written down that a visitor has granted or revoked something.

        Args:
            visitor: who did it.
            agent: the name of the agent.
            what: was done, for the log and the audit trail.
        """
        self.locks.end_agent(agent)
        self._sessions.say(f"{visitor}: agent {agent!r} {what}")
        self._sessions.note(visitor, what, f"agent {agent!r}")
