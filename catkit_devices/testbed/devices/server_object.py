"""What lives on a server without a mutex of its own: whoever calls it waits for nobody."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.protocol import Interface

__all__ = ["ServerObject"]


class ServerObject:
    """Base of objects whose public methods clients call at the same time; each looks after its own consistency."""

    def _interface_(self, kind: str) -> Interface:
        from catkit_devices.multiprocessing.protocol import Interface

        methods = {name: inspect.getdoc(member) for name, member in vars(type(self)).items() if name[0] != "_"}
        return Interface(kind, type(self).__name__, methods, {}, True, False, ())
