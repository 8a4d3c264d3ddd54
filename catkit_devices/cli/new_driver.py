"""``catkit-devices new-driver``."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from catkit_devices.cli.output import console
from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXAMPLES", "new_driver"]

EXAMPLES = (
    "catkit-devices new-driver acme_s1",
    "catkit-devices new-driver acme_s1 --package --to ~/drivers",
)

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)

_IMPORT = "from catkit_devices.hookspecs import hookimpl\n"
_HOOK = '''

@hookimpl
def catkit_devices_{kind}s() -> dict[str, type{of}]:
    """Register the {kind}."""
    return {{"{name}": {cls}}}
'''
_PLUGINS = '''HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def plugin_directories() -> list[Path]:
    """Where the driver is."""
    return [HERE]
'''


def new_driver(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The driver's name, such as acme_s1.")
    ],
    package: Annotated[
        bool, typer.Option("--package", help="Write a distribution with an entry point instead of plugin files.")
    ] = False,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Where to write; it is made if it is not there.")
    ] = Path(),
) -> None:
    """Write a driver to begin with, its simulator, and tests that pass.

    Plugin files go into a directory that a configuration names, or CATKIT_DEVICES_PLUGINS. Nothing is overwritten.
    """
    _check(name)
    files = _package(name) if package else _plugin(name)
    root = to / f"catkit-devices-{name.replace('_', '-')}" if package else to
    existing = [str(root / path) for path in files if (root / path).exists()]
    if existing:
        raise ConfigurationError(f"would overwrite {', '.join(existing)}")
    lines = []
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        lines.append(str(file))
    where = f"cd {root} && " if root != Path() else ""
    test = "pip install -e '.[test]' && pytest" if package else f"pytest test_{name}.py"
    lines.append(f"try it: {where}{test}")
    console().print("\n".join(lines), markup=False)


def _check(name: str) -> None:
    from catkit_devices.drivers import Plugins

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigurationError(f"a driver's name is lower-case words with underscores, such as acme_s1, got {name!r}")
    for kind, known in (("driver", Plugins().drivers), ("simulator", Plugins().simulators)):
        if name in known:
            thing = known[name]
            raise ConfigurationError(f"there is a {kind} {name!r} already: {getattr(thing, '__module__', thing)}")


def _plugin(name: str) -> dict[str, str]:
    """Return the files of a plugin directory."""
    cls = _class_name(name)
    driver_hook = _HOOK.format(kind="driver", of="[Device]", name=name, cls=cls)
    simulator_hook = _HOOK.format(kind="simulator", of="", name=name, cls=f"Simulated{cls}")
    return {
        f"{name}.py": _fill("driver.py", name, hook_import=_IMPORT, hook=driver_hook),
        f"{name}_simulator.py": _fill("simulator.py", name, hook_import=_IMPORT + "\n", hook=simulator_hook),
        f"test_{name}.py": _fill(
            "test.py",
            name,
            path_import="from pathlib import Path\n",
            plugins=_PLUGINS,
            conformance_plugins="    plugins: ClassVar = [HERE]\n",
        ),
    }


def _package(name: str) -> dict[str, str]:
    """Return the files of a distribution."""
    package = f"catkit_devices_{name}"
    source = f"src/{package}"
    driver = _fill("driver.py", name, hook_import="", hook="")
    # Without a hook the driver's base class is not mentioned.
    driver = driver.replace("from typing import TYPE_CHECKING\n\n", "").replace(
        "\nif TYPE_CHECKING:\n    from catkit_devices.device import Device\n", ""
    )
    return {
        "pyproject.toml": _fill("pyproject.toml", name, package=package),
        "README.md": _fill("README.md", name),
        f"{source}/__init__.py": _fill("hooks.py", name, package=package),
        f"{source}/driver.py": driver,
        f"{source}/simulator.py": _fill("simulator.py", name, hook_import="", hook=""),
        f"{source}/py.typed": "",
        f"tests/test_{name}.py": _fill("test.py", name, path_import="", plugins="", conformance_plugins=""),
    }


def _fill(template: str, name: str, **more: str) -> str:
    text = importlib.resources.files("catkit_devices.cli").joinpath("templates", f"{template}.txt").read_text("utf-8")
    words: Mapping[str, str] = {
        "name": name,
        "cls": _class_name(name),
        "title": " ".join(word.capitalize() for word in name.split("_")),
        "identity": name.upper().replace("_", ","),
        "distribution": f"catkit-devices-{name.replace('_', '-')}",
        **more,
    }
    return Template(text).substitute(words)


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
