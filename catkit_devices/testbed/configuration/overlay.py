"""Reading configuration files and laying overrides over them, remembering where each key came from."""

from __future__ import annotations

import copy
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import words
from catkit_devices.errors import ConfigurationError
from catkit_devices.plain import number_in
from catkit_devices.simulation.contract import SIMULATOR_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LOCAL_FILE", "SET_OPTION", "Overlay", "key_path"]

LOCAL_FILE = "local.toml"
"""Read after the file of a configuration, from the same directory: what differs on this computer."""
SET_OPTION = "--set"
"""What messages call the source of a value that was given on the command line."""


def key_path(path: Iterable[object]) -> str:
    """Return a key path as TOML spells it: ``devices.wheel.aliases[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


@dataclass
class Overlay:
    """Configuration tables, each laid over the ones before: tables merge, everything else replaces."""

    data: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    _sources: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Sequence[Path], overrides: Sequence[str]) -> Overlay:
        """Read every file, each followed by the ``local.toml`` beside it, then the overrides.

        Args:
            paths: the files, later ones over earlier ones; TOML, or a run's snapshot in JSON.
            overrides: ``key=value`` texts, the value in TOML syntax.

        Raises:
            ConfigurationError: a file is missing, unreadable or not TOML; an override is malformed.
        """
        overlay = cls()
        for path in paths:
            overlay.add_file(Path(path))
        for override in overrides:
            overlay.add_override(override)
        return overlay

    def add_file(self, path: Path) -> None:
        """Lay a file over what is there, then the ``local.toml`` beside it if there is one."""
        self._add(_anchored(_read(path), path.parent), str(path))
        self.files.append(path)
        local = path.with_name(LOCAL_FILE)
        if path.name != LOCAL_FILE and local not in self.files and local.is_file():
            self.add_file(local)

    def add_override(self, text: str) -> None:
        """Lay one ``key=value`` over what is there."""
        key, equals, value = text.partition("=")
        key, value = key.strip(), value.strip()
        if not (key and equals and value):
            raise ConfigurationError(f"expected KEY=VALUE, got {text!r}", file=SET_OPTION)
        try:
            table = tomllib.loads(f"{key} = {value}", parse_float=number_in)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(
                f'expected a TOML value such as 3, 2.5, true, "text" or [1, 2], got {value}', file=SET_OPTION, key=key
            ) from error
        except ConfigurationError as error:  # of a number that is too large
            raise ConfigurationError(error.problem, file=SET_OPTION, key=key) from error
        self._add(_anchored(table, Path.cwd()), SET_OPTION)

    def source(self, path: Iterable[object]) -> str | None:
        """Return where the key was set last: a file's name, ``--set``, or None if it was not."""
        parts = tuple(str(part) for part in path)
        for length in range(len(parts), 0, -1):
            if parts[:length] in self._sources:
                return self._sources[parts[:length]]
        return str(self.files[0]) if self.files else None

    def problem(self, path: Iterable[object], text: str, suggestion: str | None = None) -> ConfigurationError:
        """Return the error for one key, naming where the key came from."""
        path = tuple(path)
        return ConfigurationError(text, file=self.source(path), key=key_path(path) or None, suggestion=suggestion)

    def _add(self, table: Mapping[str, Any], source: str) -> None:
        self._merge(self.data, table, (), source)

    def _merge(self, below: dict[str, Any], above: Mapping[str, Any], path: tuple[str, ...], source: str) -> None:
        for key, value in above.items():
            here = (*path, key)
            if isinstance(value, dict):
                self._sources.setdefault(here, source)
                if not isinstance(below.get(key), dict):
                    below[key] = {}
                    self._sources[here] = source
                self._merge(below[key], value, here, source)
            else:
                below[key] = copy.deepcopy(value)
                self._sources[here] = source


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return tomllib.loads(text, parse_float=number_in)
        # The snapshot of a run: loading it repeats the run.
        snapshot = json.loads(text, parse_float=number_in)
    except FileNotFoundError as error:
        raise ConfigurationError("no such file", file=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", file=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"is not valid TOML: {error}", file=str(path)) from error
    except ConfigurationError as error:  # of a number that is too large
        raise ConfigurationError(error.problem, file=str(path)) from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"is not valid JSON: {error}", file=str(path)) from error
    if not isinstance(snapshot, dict):
        raise ConfigurationError(f"expected a JSON object, got {type(snapshot).__name__}", file=str(path))
    return snapshot


def _anchored(table: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Make what a table says independent of where and how it was written.

    Paths are relative to the file that names them. Properties of components have several spellings, of which one must
    take the place of another.
    """
    testbed = table.get("testbed")
    if isinstance(testbed, dict):
        if isinstance(testbed.get("plugins"), list):
            testbed["plugins"] = [_absolute(entry, directory) for entry in testbed["plugins"]]
        for key in ("record", "history", "logs"):
            if key in testbed:
                testbed[key] = _absolute(testbed[key], directory)
    devices = table.get("devices")
    for device in devices.values() if isinstance(devices, dict) else ():
        simulator = device.get("simulator") if isinstance(device, dict) else None
        if isinstance(simulator, str) and simulator.endswith(SIMULATOR_FILES):
            device["simulator"] = _absolute(simulator, directory)
        for key in ("limits", "telemetry"):
            if isinstance(device, dict) and key in device:
                device[key] = _by_path(device[key])
    return table


def _by_path(table: Any) -> Any:
    """Return what is said of components, which is in tables within tables, by path: ``outputs.1.voltage``."""
    if not isinstance(table, dict):
        return table
    found: dict[str, Any] = {}
    for key, value in table.items():
        at = ".".join(words(str(key)))
        if isinstance(value, dict):
            found |= {f"{at}.{path}": inner for path, inner in _by_path(value).items()}
        else:
            found[at] = value
    return found


def _absolute(path: Any, directory: Path) -> Any:
    return str((directory / Path(path).expanduser()).resolve()) if isinstance(path, str) else path
