"""Imports modules only when they are used, because imports slow down the start of every child process."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["imported", "importing"]


def importing(package: str, names: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package (PEP 562).

    Args:
        package: its name.
        names: the public names that are in each of its modules.
    """
    homes = {name: module for module, there in names.items() for name in there}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get


def imported(name: str) -> Any:
    """Return the module of that name if this process has imported it completely; else None.

    A module is in ``sys.modules`` from the beginning of its import. While another thread is still importing it, it does
    not have all of its names.
    """
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None
    return module
