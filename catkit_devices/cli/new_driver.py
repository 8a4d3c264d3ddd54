"""``catkit-devices new-driver``."""

from __future__ import annotations

import importlib.resources
import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from catkit_devices.cli.output import console
from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXAMPLES", "new_driver"]

EXAMPLES = (
    "catkit-devices new-driver acme_s1 --kind scpi",
    "catkit-devices new-driver acme_cam --kind sdk --package --to ~/drivers",
)

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
"""Names of drivers: lower-case words with underscores, as file names are."""

_KINDS = {
    "scpi": "SCPI commands, over TCP, USB, GPIB or a serial port",
    "serial": "other text commands on a serial port, or a library that needs a pyserial port",
    "sdk": "a package or library of the vendor",
    "frames": "binary frames on a serial port, with length and checksum",
    "configuration": "SCPI commands, with a table in the configuration and no program",
}
"""How an instrument is reached; for each of them there is a directory of templates."""

_OWN_INIT = ("sdk", "configuration")
"""Kinds whose distribution has no simulator to register."""

_FIXTURE = '''

@pytest.fixture(scope="session")
def plugin_directories() -> list[Path]:
    """Where the driver is."""
    return [HERE]
'''
"""What the test of a new package has before its first test."""


def new_driver(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The driver's name, such as acme_s1.")
    ],
    kind: Annotated[
        Literal["scpi", "serial", "sdk", "frames", "configuration"] | None,
        typer.Option(
            "--kind", show_default=False, help="How the instrument is reached. Asked on a terminal; otherwise scpi."
        ),
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="Write a distribution with an entry point instead of plugin files.")
    ] = False,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Where to write; it is made if it is not there.")
    ] = Path(),
) -> None:
    """Write a driver to begin with, its simulator, a configuration, and tests that pass.

    The kinds: scpi (SCPI commands), serial (other text on a serial port), sdk (a vendor's package, with a stand-in for
    tests and simulation), frames (binary frames on a serial port), configuration (SCPI without a program). Plugin files
    go into a directory that a configuration names, or CATKIT_DEVICES_PLUGINS. Nothing is overwritten.
    """
    _check(name)
    kind_ = kind or _ask_for_kind()
    files = _package(name, kind_) if package else _plugin(name, kind_)
    root = to / _distribution(name) if package else to
    existing = [str(root / path) for path in files if (root / path).exists()]
    if existing:
        raise ConfigurationError(f"would overwrite {', '.join(existing)}")
    lines = [] if kind else [f"kind: {kind_} ({_KINDS[kind_]}); choose with --kind {'|'.join(_KINDS)}"]
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        lines.append(str(file))
    where = f"cd {root} && " if root != Path() else ""
    test = "pip install -e '.[test]' && pytest" if package else f"pytest test_{name}.py"
    lines.append(f"try it: {where}{test}")
    console().print("\n".join(lines), markup=False)


def _ask_for_kind() -> str:
    """Ask which kind it is, on a terminal; elsewhere it is the first."""
    first = next(iter(_KINDS))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return first
    for kind, meaning in _KINDS.items():
        typer.echo(f"{kind:<14}{meaning}", err=True)
    while True:
        answer: str = typer.prompt("How is the instrument reached?", default=first, err=True)
        if answer in _KINDS:
            return answer
        typer.echo(f"expected one of {', '.join(_KINDS)}, got {answer!r}", err=True)


def _check(name: str) -> None:
    from catkit_devices.drivers import Plugins

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigurationError(f"a driver's name is lower-case words with underscores, such as acme_s1, got {name!r}")
    for what, known in (("driver", Plugins().drivers), ("simulator", Plugins().simulators)):
        if name in known:
            thing = known[name]
            raise ConfigurationError(f"there is a {what} {name!r} already: {getattr(thing, '__module__', thing)}")


def _plugin(name: str, kind: str) -> dict[str, str]:
    """Return the files of a plugin directory."""
    words = {
        "here": f'HERE = Path(__file__).parent\nCONFIGURATION = HERE / "{name}.toml"',
        "fixture": _FIXTURE,
        "conformance_plugins": "    plugins: ClassVar = [HERE]\n",
        "stand_in_module": f"_{name}_stand_in",
        "plugins": 'plugins = ["."]\n',
    }
    files = {f"{name}.toml": _testbed(name, kind, words)}
    if kind != "configuration":
        files[f"{name}.py"] = _fill(f"{kind}/driver.py", name, words)
        other = "stand_in" if kind == "sdk" else "simulator"
        file = f"_{name}_stand_in.py" if kind == "sdk" else f"{name}_simulator.py"
        files[file] = _fill(f"{kind}/{other}.py", name, words)
    return files | {f"test_{name}.py": _fill(f"{kind}/test.py", name, words)}


def _package(name: str, kind: str) -> dict[str, str]:
    """Return the files of a distribution."""
    package = f"catkit_devices_{name}"
    source = f"src/{package}"
    programs = kind != "configuration"
    configuration = f"{name}.toml" if programs else f"{source}/{name}.toml"
    words = {
        "package": package,
        "here": f'CONFIGURATION = Path(__file__).parents[1] / "{configuration}"',
        "fixture": "",
        "conformance_plugins": "",
        "stand_in_module": f"{package}.stand_in",
        "plugins": "",
        "entry_point": f'[project.entry-points.catkit_devices]\n{name} = "{package}"\n\n' if programs else "",
        "data": '"py.typed"' if programs else f'"py.typed", "{name}.toml"',
    }
    files = {
        "pyproject.toml": _fill("pyproject.toml", name, words),
        "README.md": _fill("README.md", name, words | {"table": _table(name, kind, words)}),
        configuration: _testbed(name, kind, words),
        f"{source}/__init__.py": _fill("init.py" if kind not in _OWN_INIT else f"{kind}/init.py", name, words),
        f"{source}/py.typed": "",
        f"tests/test_{name}.py": _fill(f"{kind}/test.py", name, words),
    }
    if programs:
        other = "stand_in" if kind == "sdk" else "simulator"
        files |= {f"{source}/{part}.py": _fill(f"{kind}/{part}.py", name, words) for part in ("driver", other)}
    return files


def _testbed(name: str, kind: str, words: Mapping[str, str]) -> str:
    """Return a configuration with the device in it."""
    return _fill("testbed.toml", name, {**words, "table": _table(name, kind, words)})


def _table(name: str, kind: str, words: Mapping[str, str]) -> str:
    """Return the table of the device in a configuration."""
    return _fill(f"{kind}/table.toml", name, words).rstrip("\n")


def _fill(template: str, name: str, words: Mapping[str, str]) -> str:
    templates = importlib.resources.files("catkit_devices.cli").joinpath("templates")
    text = templates.joinpath(*f"{template}.txt".split("/")).read_text("utf-8")
    cls = _class_name(name)
    return Template(text).substitute({
        "name": name,
        "cls": cls,
        "title": " ".join(word.capitalize() for word in name.split("_")),
        "identity": name.upper().replace("_", ","),
        "distribution": _distribution(name),
        "stand_in": f"{words['stand_in_module']}:StandIn{cls}",
        **words,
    })  # fmt: skip


def _distribution(name: str) -> str:
    return f"catkit-devices-{name.replace('_', '-')}"


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
