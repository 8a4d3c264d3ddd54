"""The search path of plugin modules: the user's directories are on the path of ``catkit_devices.plugins``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["make_importable"]


def make_importable(directories: Iterable[str | Path]) -> None:
    """Make modules in these directories importable as ``catkit_devices.plugins.NAME``; none of them is imported."""
    path = importlib.import_module("catkit_devices.plugins").__path__
    for directory in map(str, directories):
        if directory not in path:
            path.append(directory)
            importlib.invalidate_caches()
