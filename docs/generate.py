"""Writes the reference from what it describes: mkdocs calls the functions ``on_...`` when it builds the site.

Nothing of it is kept in the repository, so none of it can be out of date. What cannot be told from the code (what to do
about an error) is in ``reference/what-to-do.toml``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import to_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

__all__ = ["on_config", "on_files", "on_page_content", "reference"]

HERE = Path(__file__).parent

API = {
    "multiprocessing": ("Sharing between processes", ["catkit_devices.multiprocessing"]),
    "devices": (
        "Devices and drivers",
        [
            "catkit_devices.device",
            "catkit_devices.properties",
            "catkit_devices.components",
            "catkit_devices.visa",
            "catkit_devices.scpi",
            "catkit_devices.serial_device",
            "catkit_devices.interfaces",
            "catkit_devices.units",
        ],
    ),
    "plugins": ("Plugins", ["catkit_devices.drivers", "catkit_devices.foreign"]),
    "simulation": ("Simulation", ["catkit_devices.simulation"]),
    "testbed": ("Testbed and experiments", ["catkit_devices.testbed"]),
    "datalog": ("Data", ["catkit_devices.datalog"]),
    "testing": ("Testing", ["catkit_devices.testing", "catkit_devices.pytest_plugin"]),
}
"""Every page of the API: its title, and the modules whose public names it shows."""

HANDED_OUT = {
    "multiprocessing": [
        "Event",
        "Barrier",
        "Condition",
        "Queue",
        "FrameStream",
        "FrameWriter",
        "FrameReader",
        "Frame",
        "Holder",
    ],
    "testbed": ["CameraFrames", "CameraReader", "FrameRecorder"],
}
"""Classes that are never imported by users and yet used, by the page that shows them (``manager.get_queue(name)``)."""

HOOKS = {
    "devices": {
        "device.Device": ["_open", "_close", "_make_safe", "_continuous_frames"],
        "components.Component": ["_make_safe", "_query", "_write"],
        "visa.VisaDevice": ["_identify", "_query", "_write"],
    }
}
"""What a driver may override, by the page that shows it and the class that a driver derives from."""
HELPERS = {
    "devices": {
        "device.Device": ["_connection", "_checkpoint", "_facts"],
        "visa.VisaDevice": [
            "_exchange",
            "_transaction",
            "_distrust",
            "_ask",
            "_ask_aside",
            "_read",
            "_read_until",
            "_decode",
            "_read_bytes",
            "_query_binary",
            "_send",
            "_write_bytes",
            "_check_identity",
            "_wait_for_completion",
            "_event_status",
        ],
        "scpi.ScpiDevice": ["_ask_value", "_ask_twice", "_query_array"],
        "serial_device.SerialDevice": ["_using_port"],
    }
}
"""What a driver uses inside of its operations, by the page that shows it and the class that a driver derives from."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say on every page which version it describes, and where its source is."""
    with (HERE.parent / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    config.repo_url = project.get("urls", {}).get("Repository")
    source = "" if config.repo_url else " This version has no public repository: its source is the checkout it came in."
    config.copyright = f"{config.site_name} {project['version']}, licence {project['license']}.{source}"
    return config


def on_page_content(html: str, **_: Any) -> str:
    """Give every cell of a table the heading of its column, which a narrow screen shows beside the cell."""
    return re.sub(r"<table>.*?</table>", lambda found: _with_labels(found[0]), html, flags=re.DOTALL)


def _with_labels(table: str) -> str:
    labels = [re.sub(r"<.*?>", "", one).strip() for one in re.findall(r"<th\b[^>]*>(.*?)</th>", table, re.DOTALL)]

    def row(found: re.Match[str]) -> str:
        cells = iter(labels)
        return re.sub(r"<td\b", lambda _: f'<td data-label="{next(cells, "")}"', found[0])

    return re.sub(r"<tr\b.*?</tr>", row, table, flags=re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the site."""
    for path, text in reference().items():
        files.append(File.generated(config, path, content=text))
    return files


def reference() -> dict[str, str]:
    """Return every generated file by its path in the site."""
    pages = {f"reference/api/{page}.md": _api(page, title, modules) for page, (title, modules) in API.items()}
    return pages | {
        "changelog.md": (HERE.parent / "CHANGELOG.md").read_text(encoding="utf-8"),
        "explanation/layers.svg": _layers(),
        "reference/api/index.md": _names(),
        "reference/commands.md": _commands(),
        "reference/configuration.md": _configuration(),
        "reference/configuration.schema.json": json.dumps(_schema(), indent=2) + "\n",
        "reference/drivers.md": _drivers(),
        "reference/errors.md": _errors(),
        "reference/hooks.md": _hooks(),
    }


# --- rooms ---------------------------------------------------------------------------------------------------------

_ROOMS = {
    "__main__": ("faces", "#5c6bc0"),
    "testbed": ("testbed", "#3f7cac"),
    "simulation": ("simulation", "#2b8a8a"),
    "drivers": ("plugins", "#2e8b57"),
    "scpi_tables": ("devices", "#7a8b2e"),
    "datalog": ("data", "#8f7a2a"),
    "multiprocessing": ("sharing", "#a9762a"),
    "units": ("base", "#8a5a5a"),
}
"""The uppermost module of each group of layers in the drawing, with the group's name and colour."""
_LEFT, _WIDTH, _LINE = 130, 640, 19
"""Pixels: where the boxes begin, their width, and from one line of text to the next."""
_LETTERS = 82
"""Letters in a line of small text that fit into a box."""


def layers(package: str = "catkit_devices") -> list[list[str]]:
    """Return the layers of a package from top to bottom, each with its modules, as ``pyproject.toml`` has them."""
    with (HERE.parent / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [found] = [one["layers"] for one in contracts if one.get("containers") == [package]]
    return [[name.strip(" ()") for name in layer.split("|")] for layer in found]


def _layers() -> str:
    """Return a drawing of the layers, which only import downwards, and of what is found by name beside them."""
    beside, *inside = layers()
    groups: list[tuple[str, str, list[str]]] = []
    for layer in inside:
        start = next((_ROOMS[name] for name in layer if name in _ROOMS), None)
        if start is not None or not groups:
            groups.append((*(start or ("", "#777")), []))
        groups[-1][2].extend(layer)
    parts, y = [], 10
    for title, colour, names in groups:
        small = [line for name in names for line in _inside(name)]
        height = 24 + _LINE * (1 + len(small)) - (4 if small else 0)
        middle = y + height // 2 + 5
        parts += [
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH}" height="{height}" rx="6" fill="{colour}"/>',
            f'<text x="{_LEFT - 12}" y="{middle}" text-anchor="end" fill="#888">{title}</text>',
            f'<text x="{_LEFT + 16}" y="{y + 26}" fill="#fff">{" · ".join(names)}</text>',
        ]
        for number, line in enumerate(small, 1):
            place = y + 26 + _LINE * number
            parts.append(f'<text x="{_LEFT + 16}" y="{place}" fill="#fff" font-size="13">{line}</text>')
        y += height + 8
    right = _LEFT + _WIDTH + 20
    for number, name in enumerate(beside):
        box = f'x="{right}" y="{40 + 52 * number}" width="110" height="40" rx="6"'
        parts += [
            f'<rect {box} fill="none" stroke="#888" stroke-dasharray="5 4"/>',
            f'<text x="{right + 55}" y="{65 + 52 * number}" text-anchor="middle" fill="#888">{name}</text>',
        ]
    for number, line in enumerate(("found by name,", "never imported")):
        place = 60 + 52 * len(beside) + 18 * number
        parts.append(
            f'<text x="{right + 55}" y="{place}" text-anchor="middle" fill="#888" font-size="13">{line}</text>'
        )
    size = f'viewBox="0 0 {right + 130} {y + 2}"'
    font = 'font-family="system-ui, sans-serif" font-size="15"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t" {font}>',
            '<title id="t">The layers: each imports only from those below it</title>',
            *parts,
            "</svg>\n",
        ]
    )


def _inside(name: str) -> list[str]:
    """Return the layers inside of a package that the drawing shows, as lines of text."""
    if name not in ("testbed", "multiprocessing"):
        return []
    inside = " > ".join(", ".join(layer) for layer in layers(f"catkit_devices.{name}"))
    return [line.replace(">", "→") for line in textwrap.wrap(inside, _LETTERS)]


# --- API -----------------------------------------------------------------------------------------------------------


_HOOKS_HOW = (
    "The methods that the framework calls and a driver may override. Only `_open` must be there, and in a `VisaDevice` "
    "it is. A driver's method of such a name must take the same parameters; anything else of that name, in the class "
    "or on a device, is refused. What a base class has for users (`query`, `lock`, ...) is not to be overridden."
)
_HELPERS_HOW = (
    "What a driver uses inside of its operations. The framework never calls these through the device: a driver that "
    "has another use for such a name takes it, and does without the helper. All other private names are free: the "
    "framework's own begin *and* end with an underscore (`_life_`), as in `enum`, and are not to be used."
)
_HANDED_OUT_HOW = (
    "These are asked for (`manager.get_queue(name)`, `mutex.holder`, `testbed.frames[name]`) and not imported; what "
    "their classes are made with is the framework's business."
)


def _api(page: str, title: str, modules: Iterable[str]) -> str:
    lines = [f"# {title}", ""]
    for name in modules:
        module = importlib.import_module(name)
        lines += [f"## `{name}`", "", to_markdown(inspect.getdoc(module) or ""), ""]
        lines += [f"::: {name}.{public}\n" for public in _public(module)]
    if page in HANDED_OUT:
        lines += ["## What is handed out", "", _HANDED_OUT_HOW, ""]
    for public in HANDED_OUT.get(page, ()):
        place = _place_in(f"catkit_devices.{page}", public)
        lines.append(f"::: {place}\n    options:\n      show_bases: false\n")
    for places, title, how in (
        (HOOKS, "What a driver may override", _HOOKS_HOW),
        (HELPERS, "What a driver uses", _HELPERS_HOW),
    ):
        if page in places:
            lines += [f"## {title}", "", how, ""]
        for place, names in places.get(page, {}).items():
            lines += [
                f"::: {_definition(place, name)}\n    options:\n      show_root_full_path: true\n" for name in names
            ]
    return "\n".join(lines)


def _place_in(package: str, name: str) -> str:
    """Return the full name of a class that is defined in one of the modules of a package."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        kind = getattr(importlib.import_module(found.name), name, None)
        if getattr(kind, "__module__", None) == found.name:
            return f"{found.name}.{name}"
    raise LookupError(f"no module of {package} defines a class {name}")


def _definition(place: str, name: str) -> str:
    """Return the full name of a member where it is defined: in the class ``place`` or in one of its bases."""
    module, _, class_name = place.rpartition(".")
    for kind in getattr(importlib.import_module(f"catkit_devices.{module}"), class_name).__mro__:
        if name in vars(kind) or name in inspect.get_annotations(kind):
            return f"{kind.__module__}.{kind.__qualname__}.{name}"
    raise LookupError(f"{place} has no member {name}")


def _names() -> str:
    import catkit_devices

    lines = ["# API", "", "The names to begin with are in the package itself: `from catkit_devices import ...`.", ""]
    lines += ["| name | what it is | described in |", "|---|---|---|"]
    for name in catkit_devices.__all__:
        home = f"{getattr(getattr(catkit_devices, name), '__module__', '')}."
        pages = (page for page, (_, modules) in API.items() if any(home.startswith(f"{one}.") for one in modules))
        page = next(pages, None)
        where = f"[{API[page][0]}]({page}.md)" if page is not None else "[Hooks](../hooks.md)"
        doc = "Marks what a plugin hands in." if page is None else inspect.getdoc(getattr(catkit_devices, name)) or ""
        lines.append(f"| `{name}` | {_cell(doc.partition(chr(10))[0])} | {where} |")
    lines += ["", "Everything else is imported from the module that it is in:", ""]
    lines += [f"- [{title}]({page}.md): {', '.join(map(_code, modules))}" for page, (title, modules) in API.items()]
    return "\n".join(lines) + "\n"


def _public(module: Any) -> list[str]:
    """Return the public names of a module; of the pytest plugin, its fixtures."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    fixtures = [name for name, member in vars(module).items() if type(member).__name__ == "FixtureFunctionDefinition"]
    return [name for name in fixtures if not name.startswith("_")]


def _hooks() -> str:
    from catkit_devices import hookspecs

    lines = ["# Hooks", "", to_markdown(inspect.getdoc(hookspecs) or ""), ""]
    lines += [f"::: catkit_devices.hookspecs.{name}\n    options:\n      heading_level: 2\n" for name in hooks()]
    return "\n".join(lines)


def hooks() -> list[str]:
    """Return the name of every hook."""
    from catkit_devices import hookspecs

    return [name for name, member in vars(hookspecs).items() if hasattr(member, f"{hookspecs.PROJECT}_spec")]


# --- errors --------------------------------------------------------------------------------------------------------


def errors() -> list[type[BaseException]]:
    """Return every error of the project."""
    from catkit_devices import errors as module

    found = [getattr(module, name) for name in module.__all__]
    return sorted((one for one in found if isinstance(one, type)), key=lambda one: inspect.getsourcelines(one)[1])


def _errors() -> str:
    with (HERE / "reference" / "what-to-do.toml").open("rb") as file:
        what_to_do = tomllib.load(file)
    lines = ["# Errors", "", what_to_do["introduction"]["text"], ""]
    for error in errors():
        bases = " and ".join(f"`{base.__name__}`" for base in error.__bases__)
        article = "an" if error.__bases__[0].__name__[0] in "AEIOU" else "a"
        facts = {name: kind for name, kind in inspect.get_annotations(error).items() if not name.startswith("_")}
        lines += [f"## {error.__name__}", "", f"*Is {article} {bases}.*", "", _error_text(error, facts), ""]
        if facts:
            lines += ["Attributes: " + ", ".join(f"`{name}` (`{kind}`)" for name, kind in facts.items()) + ".", ""]
        lines += [f"**What to do.** {what_to_do[error.__name__]['text'].strip()}", ""]
    return "\n".join(lines)


def _error_text(error: type[BaseException], facts: dict[str, Any]) -> str:
    """Return what an error says of itself; those of its attributes that it explains are taken from ``facts``."""
    before, arguments = _split(error)
    rows = []
    for name, said in arguments:
        kind = facts.pop(name, None)
        rows.append(f"- `{name}`{f' (`{kind}`)' if kind else ''}: {said}")
    return "\n".join([before, *rows])


def _split(documented: Any) -> tuple[str, list[tuple[str, str]]]:
    """Return a docstring without its arguments, and those by name."""
    before, _, arguments = to_markdown(inspect.getdoc(documented) or "").partition("Args:\n")
    return before, _arguments(arguments)


def _arguments(text: str) -> list[tuple[str, str]]:
    found = re.findall(r"^ {4}(\*{0,2}\w+): ((?:.|\n(?! {4}\S))*)", text, re.MULTILINE)
    return [(name, " ".join(said.split())) for name, said in found]


# --- drivers -------------------------------------------------------------------------------------------------------

_EVERY_DEVICE = frozenset({"safe_timeout", "timeout"})


def _drivers() -> str:
    from catkit_devices.drivers import Plugins
    from catkit_devices.interfaces import interfaces_of
    from catkit_devices.testbed.configuration.device_checks import SET_BY_THE_TESTBED

    plugins = Plugins()
    lines = [
        "# Drivers",
        "",
        "The drivers that come with the package. `device.describe()` and `catkit-devices get DEVICE` show the same for",
        "one device. A property that is *shared* can be read while another program holds the device. The configuration",
        "can [narrow the limits](configuration.md#devicesname) of a property. Drivers with a simulator also have the",
        "methods of [VisaDevice](api/devices.md) (`query`, `write`, `read`, ...). The others do not use VISA. They",
        "have a [stand-in](../how-to/wrap-a-vendor-sdk.md), for `stand_in = ...` in the device's table. Options are",
        "written as keys in [the device's table](configuration.md#devicesname).",
        "",
        "| driver | instrument | making it safe |",
        "|---|---|---|",
        *(f"| [`{name}`](#{name}) | {_instrument(cls)} | {_safe(cls)} |" for name, cls in plugins.drivers.items()),
        "",
        "Each of them is [made safe](../explanation/safety.md) when whoever has changed its state dies, when the last",
        "user closes it, and when a safety check trips. Where that does nothing, there is nothing to switch off.",
        "",
    ]
    for name, driver in plugins.drivers.items():
        about = _description(driver)
        capabilities = ", ".join(f"`{one}`" for one in interfaces_of(driver)) or "none"
        options = [option for option in _options(driver) if option not in _EVERY_DEVICE | SET_BY_THE_TESTBED]
        says, arguments = _split(driver)
        lines += [f"## {name}", "", f"{_instrument(driver)}. {says.strip()}", ""]
        lines += [*(f"- `{one}`: {said}" for one, said in arguments if one in options), ""]
        simulated = _simulated(name, driver, plugins)
        lines += [f"Capabilities: {capabilities}. {simulated}. Options: {', '.join(map(_code, options))}.", ""]
        lines += ["| property | access | unit | values | what it is |", "|---|---|---|---|---|"]
        plugged = _plugged_in(driver)
        properties = [*about["properties"].items(), *plugged["properties"]]
        lines += _rows(_property_row(_any_of(name), facts) for name, facts in properties)
        own = [(name, facts) for name, facts in about["commands"].items() if not _general(driver, name)]
        commands = _rows(_command_row(_any_of(name), facts) for name, facts in [*own, *plugged["commands"]])
        lines += ["", "| command | what it does |", "|---|---|", *commands, ""] if commands else [""]
    return "\n".join(lines)


def _plugged_in(cls: Any, at: str = "", inside: bool = False) -> dict[str, list[tuple[str, Any]]]:
    """Return what the components of a driver have that are there only where the instrument says so: ``modules[...]``.

    Args:
        cls: the class of a driver or component.
        at: the path of the component.
        inside: whether that is itself one of those.
    """
    from catkit_devices._device.members import describe_command  # noqa: PLC2701 - which reads drivers for describe()
    from catkit_devices._device.parts import classes  # noqa: PLC2701 - as above
    from catkit_devices.components import Component
    from catkit_devices.device import DeviceProperty

    found: dict[str, list[tuple[str, Any]]] = {"properties": [], "commands": []}
    for part_name, part in cls._parts_.items():
        where = f"{at}{part_name}" if part._single_ else f"{at}{part_name}[...]"
        depends = inside or part._fixed_ is None
        for kind in sorted(classes(part), key=lambda one: one.__qualname__):
            for name in [name for name in dir(kind) if depends and not name.startswith("_")]:
                member = inspect.getattr_static(kind, name)
                if hasattr(Component, name):
                    continue
                if isinstance(member, DeviceProperty):
                    found["properties"].append((f"{where}.{name}", member.describe()))
                elif isinstance(member, property):
                    facts: dict[str, Any] = dict.fromkeys(("unit", "limits", "choices", "type", "shared"))
                    facts |= {"readable": True, "writable": member.fset is not None, "doc": inspect.getdoc(member)}
                    found["properties"].append((f"{where}.{name}", facts))
                elif inspect.isfunction(member):
                    found["commands"].append((f"{where}.{name}", describe_command(member)))
            inner = _plugged_in(kind, f"{where}.", depends)
            found = {key: [*rows, *inner[key]] for key, rows in found.items()}
    return found


def _instrument(driver: type[Any]) -> str:
    """Return what instruments a driver is for: the beginning of its module's docstring."""
    return _cell((sys.modules[driver.__module__].__doc__ or "").partition(": driver")[0])


def _safe(driver: type[Any]) -> str:
    """Return how a driver makes its instrument safe: the docstring of its ``_make_safe``."""
    from catkit_devices.device import Device

    method, nothing = (inspect.getattr_static(cls, "_make_safe") for cls in (driver, Device))
    return "does nothing" if method is nothing else _cell(method.__doc__)


def _simulated(name: str, driver: type[Any], plugins: Any) -> str:
    """Return what replaces the instrument of a driver under simulation."""
    from catkit_devices.stand_ins import takes_visa

    if takes_visa(driver):
        return f"Simulator: `{name}`" if name in plugins.simulators else "Simulator: none of that name"
    module = importlib.import_module(f"catkit_devices.sim.{name}")
    return f"Stand-in: `{module.__name__}:{module.__all__[0]}`"


def _description(driver: type[Any]) -> dict[str, Any]:
    from catkit_devices.construction import bind_options
    from catkit_devices.stand_ins import takes_visa

    given = {  # what a driver may need to be made
        "address": "ASRL1::INSTR" if takes_visa(driver) else "http://192.0.2.1",
        "groups": {"Group1": {"Pos": "mm"}},
        "model": "",
        "password": "",
        "properties": {},
        "serial": "",
    }
    device = bind_options(driver, "device", {name: value for name, value in given.items() if name in _options(driver)})
    description: dict[str, Any] = device.describe()
    return description


def _general(driver: type[Any], name: str) -> bool:
    """Return whether a command is that of every device which talks in text."""
    from catkit_devices.scpi import ScpiDevice

    return getattr(driver, name, driver) is getattr(ScpiDevice, name, None)


def _any_of(name: str) -> str:
    """Return the name of a member of one component as that of all of its kind: ``outputs[...].voltage``."""
    return re.sub(r"\[[^\]]*\]", "[...]", name)


def _rows(rows: Iterable[str]) -> list[str]:
    """Return the rows of a table; components of one kind have the same ones."""
    return list(dict.fromkeys(rows))


def _options(driver: type[Any]) -> list[str]:
    from catkit_devices.construction import options_of

    return sorted(options_of(driver))


def _property_row(name: str, about: dict[str, Any]) -> str:
    access = "read, set" if about["readable"] and about["writable"] else "set" if about["writable"] else "read"
    if about["shared"]:
        access += ", shared"
    values = ", ".join(map(_code, about["choices"])) if about["choices"] else about["type"] or ""
    if about["limits"]:
        low, high = (("" if bound is None else f"{bound:g}") for bound in about["limits"])
        values = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}"
    return f"| `{name}` | {access} | {about['unit'] or ''} | {values} | {_cell(about['doc'])} |"


def _command_row(name: str, about: dict[str, Any]) -> str:
    signature = about["signature"].replace("(self, ", "(").replace("(self)", "()").replace("'", "")
    return f"| `{name}{signature}` | {_cell((about['doc'] or '').partition('Args:')[0])} |"


def _cell(text: str | None) -> str:
    return " ".join(to_markdown(text or "").split()).replace("|", "\\|")


def _code(value: object) -> str:
    return f"`{value}`"


# --- configuration -------------------------------------------------------------------------------------------------

_TABLES = ("testbed", "simulation", "devices", "safety", "notifications")


def _schema() -> dict[str, Any]:
    from catkit_devices.testbed.configuration.model import json_schema

    return json_schema()


def _configuration() -> str:
    schema = _schema()
    lines = ["# Configuration", "", (HERE / "reference" / "configuration-introduction.txt").read_text().strip(), ""]
    for table in _TABLES:
        kind = schema["properties"][table]
        reference = kind.get("$ref") or kind.get("additionalProperties", {}).get("$ref")
        about = schema["$defs"][reference.rpartition("/")[2]]
        heading = f"[{table}]" if "$ref" in kind else f"[{table}.NAME]"
        _, _, summary = about["description"].partition(": ")
        lines += [f"## `{heading}`", "", _capital(_cell(summary)), ""]
        lines += ["| key | type | default | what it says |", "|---|---|---|---|"]
        for key, told in about["properties"].items():
            default = "*required*" if key in about.get("required", ()) else _default(told.get("default"))
            lines.append(f"| `{key}` | {_type(told)} | {default} | {_cell(told.get('description'))} |")
        lines += ["", *(_options_of_every_device() if table == "devices" else [])]
    return "\n".join(lines)


def _options_of_every_device() -> list[str]:
    from catkit_devices.construction import options_of
    from catkit_devices.device import Device

    defaults = {name: options_of(Device)[name].default for name in sorted(_EVERY_DEVICE)}
    said = {name: text for name, text in _split(Device)[1] if name in defaults}
    lines = [f"- `{name}` (`{default}`): {said[name]}" for name, default in defaults.items()]
    return ["Options that every driver has; [the drivers](drivers.md) have more:", "", *lines, ""]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _default(value: object) -> str:
    return "" if value in (None, [], {}) else f"`{json.dumps(value)}`"


def _type(told: dict[str, Any]) -> str:
    if "enum" in told:
        return ", ".join(_code(json.dumps(value)) for value in told["enum"])
    if "anyOf" in told:
        return " or ".join(_type(one) for one in told["anyOf"] if one.get("type") != "null")
    if told.get("type") == "array":
        inner = told.get("items")
        return f"list of {_type(inner)}" if inner else "[minimum, maximum]"
    if told.get("type") == "object":
        inner = told.get("additionalProperties")
        return f"table of {_type(inner)}" if isinstance(inner, dict) else "table"
    return {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false"}[told["type"]]


# --- commands ------------------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Return every command by its name."""
    import typer

    from catkit_devices.cli.application import COMMANDS, make_application

    group: Any = typer.main.get_group(make_application())
    return {name: group.commands[name] for name in COMMANDS}


def _commands() -> str:
    from catkit_devices.cli import application

    _, heading, about = (inspect.getdoc(application) or "").partition("Exit codes: ")
    lines = ["# Commands", ""]
    lines += ["`catkit-devices COMMAND --help` says the same, and `python -m catkit_devices` is the same program.", ""]
    lines += [_paragraphs(heading + about), ""]
    for name, command in commands().items():
        lines += [f"## {name}", "", _paragraphs(command.help), ""]
        rows = []
        usage = [f"catkit-devices {name}"]
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            if parameter.param_type_name == "option":
                words = ", ".join(_code(word) for word in (*parameter.opts, *parameter.secondary_opts))
                value = "" if parameter.is_flag else f" *{parameter.metavar or 'value'}*"
                default = parameter.default
                hidden = parameter.is_flag or callable(default) or default in (None, "", (), [])
                shown = "" if hidden else f" (`{default}`)"
                variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
                rows.append(f"| {words}{value} | {_cell(parameter.help)}{shown}{variable} |")
            else:
                metavar = parameter.metavar or (parameter.name or "").upper()
                usage.append(metavar if parameter.required else f"[{metavar}]")
                rows.append(f"| *{metavar}* | {_cell(getattr(parameter, 'help', ''))} |")
        lines += ["```", " ".join([*usage, "[OPTIONS]"]), "```", ""]
        lines += ["| option | what it does |", "|---|---|", *rows, ""] if rows else []
        module = importlib.import_module(application.COMMANDS[name].partition(":")[0])
        examples = getattr(module, "EXAMPLES", ())
        lines += ["Examples:", "", "```", *examples, "```", ""] if examples else []
    return "\n".join(lines)


def _paragraphs(text: str | None) -> str:
    return to_markdown(inspect.cleandoc(text or ""))
